//! The comparison with `nvidia-smi -q -x` on a real GPU.

use pitcrew_tests::smi::{compare, short, summary};
use pitcrew_tests::{pitcrew, run};

#[test]
#[ignore = "needs an NVIDIA GPU and its driver: cargo xtask test --ring 5"]
fn pitcrew_agrees_with_nvidia_smi_on_every_field_both_have() {
    let mut command = compare();
    command.arg("--run").arg(pitcrew());
    let outcome = run(command, "");
    assert_eq!(outcome.code, Some(0), "{}\n{}", outcome.stdout, outcome.stderr);
    assert!(summary(&outcome).starts_with("agrees: "), "{}", short(&outcome));
}
