//! What people and programs see: tables, texts and documents, made from facts that are already there.

pub(crate) mod card;
pub(crate) mod cdi;
pub(crate) mod chart;
pub(crate) mod check;
pub(crate) mod gpus;
pub(crate) mod next_boot;
pub(crate) mod proof;
pub(crate) mod report;
mod slices;
#[cfg(feature = "sim")]
pub(crate) mod story;
pub(crate) mod table;
pub(crate) mod top;
mod wrap;
