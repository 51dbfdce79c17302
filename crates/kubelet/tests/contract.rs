//! The contract, on the fake kubelet. `crates/tests` runs the same on a real one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use pitcrew_kubelet::contract::{self, Subject};
use pitcrew_kubelet::fake::{Kubelet, Options, Pod};

struct Fake {
    kubelet: Kubelet,
    _dir: tempfile::TempDir,
}

impl Fake {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let options = Options {
            dial: Duration::from_millis(200),
            ..Options::default()
        };
        let kubelet = Kubelet::with(dir.path(), options).await;
        Self {
            kubelet: kubelet.expect("it starts"),
            _dir: dir,
        }
    }
}

impl Subject for Fake {
    fn dir(&self) -> &Path {
        self.kubelet.dir()
    }

    async fn restart(&self) {
        self.kubelet.restart().await.expect("it starts again");
    }

    async fn run_pod(&self, pod: &str, resource: &str, count: usize) -> BTreeMap<String, String> {
        let pod = Pod::new("default", pod).container("main", &[(resource, count)]);
        let mut started = self.kubelet.admit(&pod).await.expect("it is admitted");
        started.remove("main").expect("it has started").options.envs
    }

    async fn restart_container(&self, pod: &str) -> BTreeMap<String, String> {
        let started = self.kubelet.restart_container("default", pod, "main").await;
        started.expect("it starts again").options.envs
    }

    async fn remove_pod(&self, pod: &str) {
        assert!(self.kubelet.remove_pod("default", pod), "there is no pod {pod}");
    }
}

macro_rules! on_the_fake {
    ($($case:ident)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                contract::$case(&Fake::start().await).await;
            }
        )*
    };
}

pitcrew_kubelet::for_each_case!(on_the_fake);
