//! The contract of the in-memory API, on the real one: the same functions that ring 2 runs on `pitcrew-apiserver`.

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use pitcrew_apiserver::contract::{self, Cluster};
use pitcrew_tests::testbed;

/// A client of the test bed's API server.
async fn client() -> kube::Client {
    let path = PathBuf::from(testbed(&["kubeconfig"]).ok().trim());
    let kubeconfig = Kubeconfig::read_from(path).expect("the kubeconfig can be read");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.expect("the kubeconfig names a cluster and a user");
    kube::Client::try_from(config).expect("a client can be made")
}

macro_rules! on_the_test_bed {
    ($($case:ident)*) => {
        $(
            #[tokio::test]
            #[ignore = "needs the test bed: cargo xtask test --ring 4"]
            async fn $case() {
                contract::$case(Cluster::new(client().await).await).await;
            }
        )*
    };
}

pitcrew_apiserver::for_each_case!(on_the_test_bed);
