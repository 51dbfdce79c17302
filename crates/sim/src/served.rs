//! What of an imaginary node is served on loopback: its API server, its health, its metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pitcrew_agent::notice::Level;
use pitcrew_apiserver::tcp;
use pitcrew_kubelet::fake::Kubelet;
use tokio::net::TcpListener;

use crate::cluster;
use crate::http::{self, Page, Pages};
use crate::node::Node;
use crate::notices::Notices;
use crate::pods;

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The API server.
    pub api: SocketAddr,
    /// What kubectl needs for it.
    pub kubeconfig: PathBuf,
    /// `/healthz` and `/metrics`.
    pub http: SocketAddr,
}

impl Node {
    /// Serves the API server, for kubectl, and health and metrics, until the node is dropped. Ports are free ones of
    /// loopback; there is no authentication.
    ///
    /// # Errors
    /// Where nothing can be listened on.
    pub async fn serve(&mut self) -> io::Result<Served> {
        let loopback = (Ipv4Addr::LOCALHOST, 0);
        let (api, http) = (
            TcpListener::bind(loopback).await?,
            TcpListener::bind(loopback).await?,
        );
        let served = Served {
            api: api.local_addr()?,
            kubeconfig: self.root().join("kubeconfig"),
            http: http.local_addr()?,
        };
        fs::write(&served.kubeconfig, tcp::kubeconfig(served.api))?;
        let cluster = self.api().clone();
        // They end with the node; who asks then finds nobody.
        self.keep(async move { drop(tcp::serve(cluster, api).await) });
        let watched = Watched {
            kubelet: Arc::clone(self.kubelet()),
            notices: self.notices().clone(),
            agent_runs: self.alive(),
        };
        let pages: Pages = Arc::new(move |path| watched.page(path));
        self.keep(async move { drop(http::serve(http, pages).await) });
        let (client, name) = (self.client().clone(), self.name().to_owned());
        let kubelet = Arc::clone(self.kubelet());
        self.keep(async move { cluster::report(&client, &name, &kubelet).await });
        Ok(served)
    }
}

/// What is looked at for a page.
struct Watched {
    kubelet: Arc<Kubelet>,
    notices: Notices,
    agent_runs: Arc<AtomicBool>,
}

impl Watched {
    fn page(&self, path: &str) -> Option<Page> {
        let page = |status, text: &str| Page {
            status,
            text: text.to_owned(),
        };
        match path {
            "/healthz" if self.agent_runs.load(Ordering::Relaxed) => Some(page(200, "ok\n")),
            "/healthz" => Some(page(503, "the agent does not run\n")),
            "/metrics" => Some(page(200, &self.metrics())),
            _ => None,
        }
    }

    /// What the kubelet knows of devices, and what the agent has told, in Prometheus' text format.
    fn metrics(&self) -> String {
        let mut text = String::from(
            "# HELP pitcrew_sim_devices Devices that the kubelet knows, by resource and health.\n\
             # TYPE pitcrew_sim_devices gauge\n",
        );
        for (resource, devices) in pods::resources(&self.kubelet) {
            for (health, wanted) in [("Healthy", true), ("Unhealthy", false)] {
                let count = devices.iter().filter(|device| device.healthy == wanted).count();
                let _ = writeln!(
                    text,
                    "pitcrew_sim_devices{{resource=\"{resource}\",health=\"{health}\"}} {count}"
                );
            }
        }
        text += "# HELP pitcrew_sim_notices_total What the agent has told, by topic and level.\n\
                 # TYPE pitcrew_sim_notices_total counter\n";
        let mut counts: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for notice in self.notices.all() {
            let level = match notice.level {
                Level::Info => "info",
                Level::Warning => "warning",
                Level::Error => "error",
            };
            *counts.entry((notice.topic.to_string(), level)).or_default() += 1;
        }
        for ((topic, level), count) in counts {
            let _ = writeln!(
                text,
                "pitcrew_sim_notices_total{{topic=\"{topic}\",level=\"{level}\"}} {count}"
            );
        }
        text
    }
}
