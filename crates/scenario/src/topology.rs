//! How the GPUs of a scenario are connected.

use pitcrew_core::Reading;
use pitcrew_core::inventory::{Link, PciPath};

use crate::error::Problem;

/// A cell of `nvidia-smi topo -m`.
fn cell(token: &str) -> Option<Cell> {
    if let Some(count) = token.strip_prefix("NV") {
        return count
            .parse()
            .ok()
            .filter(|&links| (1..=72).contains(&links))
            .map(Cell::NvLink);
    }
    Some(Cell::Path(match token {
        "PIX" => PciPath::SingleSwitch,
        "PXB" => PciPath::MultipleSwitches,
        "PHB" => PciPath::HostBridge,
        "NODE" => PciPath::NumaNode,
        "SYS" => PciPath::System,
        _ => return None,
    }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    NvLink(u32),
    Path(PciPath),
}

/// The nearest common ancestor when nothing else is said: two slots of one NUMA node meet above their host bridges.
fn path(numa: &[u32], from: usize, to: usize) -> PciPath {
    if numa[from] == numa[to] {
        PciPath::NumaNode
    } else {
        PciPath::System
    }
}

/// Every pair of GPUs, joined by the same number of `NVLinks` or by `PCIe` only.
pub(crate) fn uniform(numa: &[u32], nvlinks: Option<u32>) -> Vec<Link> {
    let nvlinks = nvlinks.map_or(Reading::NotSupported, Reading::Value);
    pairs(numa.len())
        .map(|(from, to)| link(from, to, path(numa, from, to), nvlinks.clone()))
        .collect()
}

/// From the rows of a matrix; the error names the row.
pub(crate) fn matrix(numa: &[u32], rows: &[&str]) -> Result<Vec<Link>, (usize, Problem)> {
    let count = numa.len();
    let wrong = |row: usize, what: String| (row, Problem::Links(what));
    if rows.len() != count {
        return Err(wrong(
            0,
            format!("the matrix has {} rows for {count} GPUs", rows.len()),
        ));
    }
    let mut cells = Vec::with_capacity(count);
    for (row, text) in rows.iter().enumerate() {
        let tokens: Vec<&str> = text.split_whitespace().collect();
        if tokens.len() != count {
            return Err(wrong(
                row,
                format!("the row has {} columns for {count} GPUs", tokens.len()),
            ));
        }
        let mut parsed = Vec::with_capacity(count);
        for (column, token) in tokens.into_iter().enumerate() {
            parsed.push(match (cell(token), row == column) {
                (None, true) if token == "X" => None,
                (Some(cell), false) => Some(cell),
                _ => {
                    let expected = if row == column {
                        "X"
                    } else {
                        "NV1 to NV72, PIX, PXB, PHB, NODE or SYS"
                    };
                    return Err(wrong(
                        row,
                        format!("column {} must be {expected}, not `{token}`", column + 1),
                    ));
                }
            });
        }
        cells.push(parsed);
    }
    for (from, to) in pairs(count) {
        if cells[from][to] != cells[to][from] {
            return Err(wrong(
                to,
                format!("column {} and its mirror image differ", from + 1),
            ));
        }
    }
    let any_nvlink = cells
        .iter()
        .flatten()
        .any(|cell| matches!(cell, Some(Cell::NvLink(_))));
    Ok(pairs(count)
        .filter_map(|(from, to)| {
            Some(match cells[from][to]? {
                Cell::NvLink(links) => link(from, to, path(numa, from, to), Reading::Value(links)),
                Cell::Path(path) if any_nvlink => link(from, to, path, Reading::Value(0)),
                Cell::Path(path) => link(from, to, path, Reading::NotSupported),
            })
        })
        .collect())
}

/// `NVLinks` of each GPU: through switches all to each peer at once, else the sum over the peers.
pub(crate) fn nvlinks_of(links: &[Link], gpu: usize) -> Option<u32> {
    let of_gpu = links
        .iter()
        .filter(|link| link.from as usize == gpu || link.to as usize == gpu);
    of_gpu
        .filter_map(|link| link.nvlinks.value().copied())
        .reduce(|a, b| a + b)
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |from| (from + 1..count).map(move |to| (from, to)))
}

fn link(from: usize, to: usize, path: PciPath, nvlinks: Reading<u32>) -> Link {
    let index = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Link {
        from: index(from),
        to: index(to),
        path: Reading::Value(path),
        nvlinks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_read_as_nvidia_smi_prints_it() {
        let links = matrix(&[0, 0, 1], &["X NV4 SYS", "NV4 X NODE", "SYS NODE X"]).unwrap();
        assert_eq!(links.len(), 3);
        assert_eq!(links[0].nvlinks, Reading::Value(4));
        assert_eq!(links[1].path, Reading::Value(PciPath::System));
        assert_eq!(links[1].nvlinks, Reading::Value(0));
        assert_eq!(nvlinks_of(&links, 0), Some(4));
    }

    #[test]
    fn a_matrix_that_does_not_fit_is_refused_with_its_row() {
        let says =
            |rows: &[&str]| matrix(&[0, 0], rows).map_err(|(row, problem)| format!("{row}: {problem}"));
        assert_eq!(
            says(&["X NV4"]).unwrap_err(),
            "0: links: the matrix has 1 rows for 2 GPUs"
        );
        assert_eq!(
            says(&["X NV4", "NV4"]).unwrap_err(),
            "1: links: the row has 1 columns for 2 GPUs"
        );
        assert_eq!(
            says(&["X NV4", "NV5 X"]).unwrap_err(),
            "1: links: column 1 and its mirror image differ"
        );
        assert!(
            says(&["X X", "NV5 X"])
                .unwrap_err()
                .contains("column 2 must be NV1")
        );
    }
}
