//! What the machine must offer before anything is started.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::Result;

use super::Missing;
use super::paths::Paths;

/// Root, the two util-linux programs, x86-64: what no test bed can do without.
pub(crate) fn check(paths: &Paths) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Missing::new(
            "the test bed needs root: it mounts, makes cgroups and listens on port 443 of loopback",
            "run it as root or with `sudo -E`",
        )
        .into());
    }
    for program in ["unshare", "nsenter"] {
        if !crate::process::on_path(program) {
            return Err(Missing::new(
                format!("the program {program} is not on the PATH"),
                "install util-linux (`apt-get install util-linux`)",
            )
            .into());
        }
    }
    if !cfg!(target_arch = "x86_64") {
        return Err(Missing::new(
            "the test bed runs on x86-64 only",
            "use a machine of that kind, or leave out ring 4",
        )
        .into());
    }
    paths.make()
}

/// Fails where somebody else listens on a port that `component` is about to take.
pub(crate) fn port_is_free(component: &str, port: u16) -> Result<()> {
    let Some(inode) = listener(port) else {
        return Ok(());
    };
    let holder = holder(inode).map_or_else(
        || "another program (it could not be found out which)".to_owned(),
        |(pid, name)| format!("{name} (process {pid})"),
    );
    Err(Missing::new(
        format!("port {port} of 127.0.0.1, which {component} needs, is taken by {holder}"),
        format!(
            "stop {holder}, or see `ss -ltnp 'sport = :{port}'`; then run `cargo xtask testbed up` again"
        ),
    )
    .into())
}

/// The socket inode of whoever listens on this port of loopback or of every address.
fn listener(port: u16) -> Option<u64> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .find_map(|table| table.lines().skip(1).find_map(|line| listening_inode(line, port)))
}

/// One line of /proc/net/tcp: its inode, where it listens on `port` in a way that is in our way.
fn listening_inode(line: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace();
    let (address, local_port) = fields.nth(1)?.split_once(':')?;
    if u16::from_str_radix(local_port, 16).ok()? != port || fields.nth(1)? != LISTEN {
        return None;
    }
    let in_the_way = if address.len() == 8 {
        // The kernel prints the address as one number in the machine's own byte order.
        let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.swap_bytes());
        address.is_unspecified() || address == Ipv4Addr::LOCALHOST
    } else {
        Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?).is_unspecified()
    };
    in_the_way.then(|| fields.nth(5)?.parse().ok()).flatten()
}

/// The process that has a socket open: its id and name.
fn holder(inode: u64) -> Option<(u32, String)> {
    let wanted = format!("socket:[{inode}]");
    processes().find_map(|pid| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let has = files
            .flatten()
            .any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == Path::new(&wanted)));
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        has.then(|| (pid, name.trim().to_owned()))
    })
}

/// The ids of all processes that can be seen now.
pub(crate) fn processes() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// True where / (or where the bed lies) is itself an overlay, on which no other can write.
pub(crate) fn on_overlay(path: &Path) -> bool {
    const OVERLAYFS: i64 = 0x794c_7630;
    rustix::fs::statfs(path).is_ok_and(|about| about.f_type == OVERLAYFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_loopback_or_everywhere_is_in_the_way() {
        let line = |address: &str, state: &str| {
            format!(
                "   0: {address}:01BB 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 4242 1 0"
            )
        };
        assert_eq!(listening_inode(&line("0100007F", "0A"), 443), Some(4242));
        assert_eq!(listening_inode(&line("00000000", "0A"), 443), Some(4242));
        assert_eq!(
            listening_inode(&line("0100007F", "01"), 443),
            None,
            "a connection is no listener"
        );
        assert_eq!(
            listening_inode(&line("0500000A", "0A"), 443),
            None,
            "10.0.0.5 is not ours"
        );
        assert_eq!(listening_inode(&line("0100007F", "0A"), 444), None);
        assert_eq!(listening_inode(&line(&"0".repeat(32), "0A"), 443), Some(4242));
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = port_is_free("kube-apiserver", port).unwrap_err().to_string();
        assert!(
            error.contains(&format!("port {port}")) && error.contains(&std::process::id().to_string()),
            "{error}"
        );
        drop(taken);
        assert!(port_is_free("kube-apiserver", port).is_ok());
    }
}
