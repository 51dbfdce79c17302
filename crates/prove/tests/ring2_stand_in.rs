//! Whole proofs on the stand-in: what is well passes, and every fault is found and placed.

#[path = "ring2_stand_in/bed.rs"]
mod bed;
#[path = "ring2_stand_in/ends.rs"]
mod ends;
#[path = "ring2_stand_in/faults.rs"]
mod faults;
#[path = "ring2_stand_in/peers.rs"]
mod peers;
#[path = "ring2_stand_in/well.rs"]
mod well;
