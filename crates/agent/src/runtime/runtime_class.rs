//! The `RuntimeClass` `nvidia`, for clusters whose distribution brings none.

use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::PostParams;
use kube::{Api, Client};
use pitcrew_core::Reading;
use pitcrew_host::Host;

use super::tier::HANDLER;
use crate::status::MANAGER;

/// Makes it where it is absent, and says whether it did. One that is there is never changed, nor taken away: RKE2 and K3s
/// make theirs by themselves, and on releases that do none is made here, as their chart would find it owned by somebody
/// else.
///
/// It is created and not applied: of an object that appears in between, applying would take fields over.
///
/// # Errors
/// Where the API server doesn't answer, or refuses.
pub async fn ensure(client: Client, host: &Host) -> Result<bool, kube::Error> {
    let distribution = host.distribution.value();
    let brings =
        distribution.is_some_and(|distribution| distribution.ships_runtime_class != Reading::NotSupported);
    if brings {
        return Ok(false);
    }
    let classes: Api<RuntimeClass> = Api::all(client);
    if classes.get_opt(HANDLER).await?.is_some() {
        return Ok(false);
    }
    let mut class = RuntimeClass {
        handler: HANDLER.to_owned(),
        ..RuntimeClass::default()
    };
    class.metadata.name = Some(HANDLER.to_owned());
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    match classes.create(&params, &class).await {
        Ok(_) => Ok(true),
        // Another node's agent, or the distribution, was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_apiserver::ApiServer;
    use pitcrew_scenario::HostRoot;

    fn host(manifest: &str) -> Host {
        let find = |name: &str| HostRoot::builtin_text(name).map(str::to_owned);
        Host::gather(&HostRoot::parse(manifest, "x", &find).unwrap())
    }

    #[tokio::test]
    async fn it_is_made_once_where_nobody_brings_it_and_never_changed() {
        let kubeadm =
            host("description: x\nfiles: {/etc/kubernetes/kubelet.conf: x, /usr/bin/containerd: x}\n");
        let server = ApiServer::new();
        let client = || Client::new(server.clone(), "default");
        let (a, b) = tokio::join!(ensure(client(), &kubeadm), ensure(client(), &kubeadm));
        assert!(a.unwrap() ^ b.unwrap(), "one of two makes it");
        let classes: Api<RuntimeClass> = Api::all(client());
        assert_eq!(classes.get(HANDLER).await.unwrap().handler, HANDLER);

        let server = ApiServer::new();
        let client = || Client::new(server.clone(), "default");
        let classes: Api<RuntimeClass> = Api::all(client());
        let mut theirs = RuntimeClass {
            handler: "runc".to_owned(),
            ..RuntimeClass::default()
        };
        theirs.metadata.name = Some(HANDLER.to_owned());
        classes.create(&PostParams::default(), &theirs).await.unwrap();
        assert!(!ensure(client(), &kubeadm).await.unwrap());
        assert_eq!(classes.get(HANDLER).await.unwrap().handler, "runc");
    }

    #[tokio::test]
    async fn rke2s_own_is_waited_for() {
        let server = ApiServer::new();
        let client = Client::new(server.clone(), "default");
        assert!(
            !ensure(client, &host("description: x\nlike: rke2\n"))
                .await
                .unwrap()
        );
        assert!(server.audit().entries().is_empty(), "nothing is asked");
    }
}
