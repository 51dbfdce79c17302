//! The contract of the in-memory API, on the real one: the same functions that ring 2 runs on `pitcrew-apiserver`.

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use pitcrew_apiserver::contract::{self, Cluster};
use pitcrew_tests::{kubectl, testbed};

/// A client of the test bed's API server.
async fn client() -> kube::Client {
    let path = PathBuf::from(testbed(&["kubeconfig"]).ok().trim());
    let kubeconfig = Kubeconfig::read_from(path).expect("the kubeconfig can be read");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.expect("the kubeconfig names a cluster and a user");
    kube::Client::try_from(config).expect("a client can be made")
}

/// The name that a case gives to what it makes outside of namespaces, which a case that fails leaves behind: a node that
/// nobody runs would stand in the way of other tests.
struct Leftovers(String);

impl Drop for Leftovers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let delete = ["delete", "--wait=false", "--ignore-not-found"];
            kubectl(&[&delete[..], &["node", &self.0]].concat(), "");
            kubectl(&[&delete[..], &["namespace", &self.0]].concat(), "");
        }
    }
}

macro_rules! on_the_test_bed {
    ($($case:ident)*) => {
        $(
            #[tokio::test]
            #[ignore = "needs the test bed: cargo xtask test --ring 4"]
            async fn $case() {
                let cluster = Cluster::new(client().await).await;
                let _leftovers = Leftovers(cluster.namespace.clone());
                contract::$case(cluster).await;
            }
        )*
    };
}

pitcrew_apiserver::for_each_case!(on_the_test_bed);
