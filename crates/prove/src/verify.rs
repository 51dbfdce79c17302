//! What must come out, what came out, and what a difference means. Pure.

pub mod golden;
pub mod loops;
pub mod march;
pub mod operand;
pub mod records;
pub mod tiles;
