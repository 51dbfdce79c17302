//! The test bed is a real Kubernetes: what pitcrew rests on works there, with kubectl and Helm as they are released.

use pitcrew_tests::{Namespace, kubectl, on_node, pod, wait_for};

const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_pod_runs_with_an_address_and_reaches_the_api_server() {
    let namespace = Namespace::new("ring4-pod", &[]);
    let script = "ip -4 -o addr show eth0; \
                  nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo reached; \
                  test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token";
    namespace
        .kubectl(&["apply", "-f", "-"], &pod("first", script, "{}", "{}"))
        .ok();
    let (phase, log) = namespace.ended("first");
    assert_eq!(phase, "Succeeded", "{log}");
    assert!(log.contains("inet 10.254.0."), "{log}");
    assert!(log.contains("reached") && log.contains("token"), "{log}");
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_failing_pod_says_how_it_ended() {
    let namespace = Namespace::new("ring4-failing", &[]);
    namespace
        .kubectl(
            &["apply", "-f", "-"],
            &pod("failing", "echo last words; exit 3", "{}", "{}"),
        )
        .ok();
    let (phase, log) = namespace.ended("failing");
    assert_eq!((phase.as_str(), log.as_str()), ("Failed", "last words\n"));
    let code = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(
        namespace.kubectl(&["get", "pod", "failing", "-o", code], "").ok(),
        "3"
    );
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_restricted_profile_admits_what_it_should_and_nothing_else() {
    let namespace = Namespace::new("ring4-restricted", &[RESTRICTED]);
    let refused = namespace
        .kubectl(
            &["apply", "-f", "-"],
            &pod("privileged", "true", "{}", r#"{"privileged": true}"#),
        )
        .refused();
    assert!(
        refused.contains("violates PodSecurity") && refused.contains("privileged"),
        "{refused}"
    );

    let pod_security =
        r#"{"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}"#;
    let security = r#"{"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}"#;
    // Seccomp mode 2 is a filter; that it is one shows that runc was built with seccomp.
    let script = "id -u; grep -w Seccomp /proc/self/status; grep -w NoNewPrivs /proc/self/status";
    namespace
        .kubectl(
            &["apply", "-f", "-"],
            &pod("restricted", script, pod_security, security),
        )
        .ok();
    let (phase, log) = namespace.ended("restricted");
    assert_eq!(phase, "Succeeded", "{log}");
    assert_eq!(log, "65532\nSeccomp:\t2\nNoNewPrivs:\t1\n");
}

const DEFINITION: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: slices.ring4.pitcrew.dev}
spec:
  group: ring4.pitcrew.dev
  scope: Cluster
  names: {kind: Slice, plural: slices, singular: slice}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              replicas: {type: integer}
              limit: {type: integer}
            x-kubernetes-validations:
            - rule: self.replicas <= self.limit
              message: more replicas than the limit
            - rule: oldSelf.limit <= self.limit
              message: the limit never shrinks
";

fn slice(replicas: u32, limit: u32) -> String {
    format!(
        "apiVersion: ring4.pitcrew.dev/v1alpha1\nkind: Slice\nmetadata: {{name: one}}\n\
         spec: {{replicas: {replicas}, limit: {limit}}}\n"
    )
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_custom_resource_is_validated_by_cel() {
    kubectl(&["apply", "-f", "-"], DEFINITION).ok();
    kubectl(
        &[
            "wait",
            "--for=condition=Established",
            "crd/slices.ring4.pitcrew.dev",
            "--timeout=30s",
        ],
        "",
    )
    .ok();
    wait_for("the resource to be served", || {
        (kubectl(&["apply", "-f", "-"], &slice(2, 4)).code == Some(0)).then_some(())
    });
    let too_many = kubectl(&["apply", "-f", "-"], &slice(5, 4)).refused();
    assert!(too_many.contains("more replicas than the limit"), "{too_many}");
    let shrunk = kubectl(&["apply", "-f", "-"], &slice(1, 3)).refused();
    assert!(shrunk.contains("the limit never shrinks"), "{shrunk}");
    kubectl(&["apply", "-f", "-"], &slice(5, 6)).ok();
    kubectl(&["delete", "crd", "slices.ring4.pitcrew.dev"], "").ok();
}

fn settings(color: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{color: {color}}}\n")
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn server_side_apply_knows_who_owns_a_field() {
    let namespace = Namespace::new("ring4-apply", &[]);
    let apply = |manager: &str, color: &str, more: &[&str]| {
        let manager = format!("--field-manager={manager}");
        let arguments = [&["apply", "--server-side", &manager, "-f", "-"], more].concat();
        namespace.kubectl(&arguments, &settings(color))
    };
    apply("first", "red", &[]).ok();
    let conflict = apply("second", "blue", &[]).refused();
    assert!(
        conflict.contains(r#"conflict with "first": .data.color"#),
        "{conflict}"
    );
    apply("second", "red", &[]).ok();
    apply("third", "green", &["--force-conflicts"]).ok();
    let owners = "jsonpath={range .metadata.managedFields[*]}{.manager} {end}";
    let owners = namespace
        .kubectl(
            &[
                "get",
                "configmap",
                "settings",
                "--show-managed-fields",
                "-o",
                owners,
            ],
            "",
        )
        .ok();
    assert_eq!(owners.trim(), "third");
}

const POLICY: &str = r"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: ring4-names}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}
  validations:
  - expression: object.metadata.name.startsWith(namespaceObject.metadata.labels['prefix'])
    messageExpression: '''the name must start with '' + namespaceObject.metadata.labels[''prefix'']'
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: ring4-names}
spec:
  policyName: ring4-names
  validationActions: [Deny]
  matchResources:
    namespaceSelector: {matchExpressions: [{key: prefix, operator: Exists}]}
";

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn an_admission_policy_refuses_what_it_should() {
    let namespace = Namespace::new("ring4-policy", &["prefix=own"]);
    kubectl(&["apply", "-f", "-"], POLICY).ok();
    let create = |name: &str, dry: &[&str]| {
        let arguments = [&["create", "configmap", name], dry].concat();
        namespace.kubectl(&arguments, "")
    };
    // The API server takes a new policy into use a moment after it was made.
    let refusal = wait_for("the policy to be in force", || {
        let outcome = create("other-settings", &["--dry-run=server"]);
        (outcome.code != Some(0)).then_some(outcome.stderr)
    });
    assert!(
        refusal.contains("ring4-names") && refusal.contains("the name must start with own"),
        "{refusal}"
    );
    create("own-settings", &[]).ok();
    kubectl(&["delete", "-f", "-"], POLICY).ok();
}

/// A chart is a directory; it is made on the node by one script.
const CHART: &str = r#"
set -e
mkdir -p /tmp/pitcrew-ring4-chart/templates
cd /tmp/pitcrew-ring4-chart
cat > Chart.yaml <<END
apiVersion: v2
name: trivial
version: 0.1.0
END
echo 'color: red' > values.yaml
cat > templates/settings.yaml <<'END'
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data: {color: {{ required "color is missing" .Values.color | quote }}}
END
"#;

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn helm_installs_upgrades_and_removes_a_chart() {
    let namespace = Namespace::new("ring4-helm", &[]);
    on_node(&["sh", "-c", CHART], "").ok();
    let helm = |arguments: &[&str]| {
        let all = [&["helm", "--namespace", namespace.name()], arguments].concat();
        on_node(&all, "")
    };
    let color = || {
        let field = "jsonpath={.data.color}";
        namespace.kubectl(&["get", "configmap", "first", "-o", field], "")
    };
    let chart = "/tmp/pitcrew-ring4-chart";
    helm(&["install", "first", chart]).ok();
    assert_eq!(color().ok(), "red");
    helm(&["upgrade", "first", chart, "--set", "color=blue"]).ok();
    assert_eq!(color().ok(), "blue");
    let refused = helm(&["upgrade", "first", chart, "--set", "color="]).refused();
    assert!(refused.contains("color is missing"), "{refused}");
    assert_eq!(color().ok(), "blue", "a refused upgrade changed something");
    helm(&["uninstall", "first"]).ok();
    assert!(color().refused().contains("NotFound"));
    on_node(&["rm", "-r", chart], "").ok();
}
