//! The contract, on the in-memory server. `crates/tests` runs the same on a real one.

use pitcrew_apiserver::ApiServer;
use pitcrew_apiserver::contract::{self, Cluster};

macro_rules! on_the_in_memory_server {
    ($($case:ident)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $case() {
                let client = kube::Client::new(ApiServer::new(), "default");
                contract::$case(Cluster::new(client).await).await;
            }
        )*
    };
}

pitcrew_apiserver::for_each_case!(on_the_in_memory_server);
