//! `xtask gen`: files that are generated and committed.

use anyhow::{Context, Result, bail};

/// Options of `xtask gen`.
#[derive(clap::Args)]
pub(crate) struct GenArgs {
    /// Change nothing; fail if a file is out of date
    #[arg(long)]
    pub(crate) check: bool,
}

/// Writes what differs, or with `--check` names it and fails.
pub(crate) fn run(args: &GenArgs) -> Result<()> {
    let root = crate::repository();
    let mut stale = Vec::new();
    let mut files = pitcrew_gen::generate();
    files.push(crate::nvml::generate()?);
    files.extend(pitcrew_gen::protos(&root).context("could not generate the kubelet's interfaces")?);
    for (path, text) in files {
        let full = root.join(&path);
        if std::fs::read_to_string(&full).is_ok_and(|current| current == text) {
            continue;
        }
        stale.push(path.display().to_string());
        if !args.check {
            if let Some(dir) = full.parent() {
                std::fs::create_dir_all(dir)
                    .with_context(|| format!("could not create {}", dir.display()))?;
            }
            std::fs::write(&full, text).with_context(|| format!("could not write {}", full.display()))?;
            println!("{}", path.display());
        }
    }
    if args.check && !stale.is_empty() {
        bail!(
            "out of date: {}; run `cargo xtask gen` and commit the result",
            stale.join(", ")
        );
    }
    Ok(())
}
