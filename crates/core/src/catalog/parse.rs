//! Reads the embedded file. It is part of the program, so a line that doesn't parse is left out and a test counts.

use csv::StringRecord;

use super::{Architecture, Card, Class};

/// The cards of a file with the catalogue's header.
pub(super) fn cards(text: &str) -> Vec<Card> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let Ok(header) = reader.headers().cloned() else {
        return Vec::new();
    };
    reader
        .records()
        .filter_map(Result::ok)
        .filter_map(|record| {
            card(&Line {
                header: &header,
                record,
            })
        })
        .collect()
}

struct Line<'a> {
    header: &'a StringRecord,
    record: StringRecord,
}

impl Line<'_> {
    fn text(&self, column: &str) -> Option<&str> {
        let position = self.header.iter().position(|name| name == column)?;
        self.record.get(position).map(str::trim)
    }

    fn whole(&self, column: &str) -> Option<u32> {
        self.text(column)?.parse().ok()
    }

    /// A figure; nothing where the cell is empty or isn't one.
    fn figure(&self, column: &str) -> Option<f64> {
        self.text(column)?.parse().ok()
    }

    fn owned(&self, column: &str) -> Option<String> {
        self.text(column).map(str::to_owned)
    }

    fn word<T: Copy>(&self, column: &str, words: &[(T, &str)]) -> Option<T> {
        let text = self.text(column)?;
        words
            .iter()
            .find(|(_, word)| *word == text)
            .map(|(value, _)| *value)
    }
}

fn card(line: &Line<'_>) -> Option<Card> {
    Some(Card {
        name: line.owned("name")?,
        name_pattern: line.owned("nvml_name_regex")?,
        pci_device_id: u16::from_str_radix(line.text("pci_device_id")?, 16).ok()?,
        architecture: line.word("arch", &Architecture::ALL)?,
        compute_capability: line.text("cc")?.parse().ok()?,
        class: line.word("class", &Class::ALL)?,
        memory_gb: line.whole("vram_gb")?,
        memory_type: line.owned("mem_type")?,
        sm_count: line.whole("sm_count")?,
        boost_mhz: line.whole("boost_mhz")?,
        fp32_tflops: line.figure("fp32_tflops"),
        tensor_tflops: line.figure("tensor_dense_tflops_fp32acc"),
        tensor_dtype: line.owned("tensor_dtype")?,
        fp8_tflops: line.figure("fp8_dense_tflops"),
        memory_bandwidth_gbs: line.figure("mem_bw_gbs")?,
        tdp_w: line.whole("tdp_w")?,
        pcie_gen: line.whole("pcie_gen")?,
        pcie_width: line.whole("pcie_width")?,
        expected_pcie_gbs: line.figure("exp_pcie_pinned_gbs"),
        nvlink_gbs: line.whole("nvlink_total_gbs_bidir")?,
        mig_max_instances: line.whole("mig_max_instances")?,
        expected_tensor_tflops: line.figure("exp_tensor_tflops"),
        expected_tensor_basis: line.owned("exp_basis")?,
        expected_memory_gbs: line.figure("exp_mem_gbs"),
        expected_memory_basis: line.owned("exp_mem_basis")?,
        source: line.owned("source")?,
    })
}
