//! Lays the root of a test out in a directory, for NVIDIA's toolkit to be run on: `lay-out-root NAME DIR`. Without
//! arguments it lists the roots, each with its scenario and the root of its driver.

use std::path::Path;

#[path = "../tests/it/roots.rs"]
#[expect(clippy::unwrap_used, reason = "it is part of the tests")]
mod roots;

#[expect(
    clippy::print_stdout,
    reason = "a program for the person who makes the fixtures"
)]
fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, dir] = arguments.as_slice() else {
        for fixture in &roots::ALL {
            println!("{} {} {}", fixture.name, fixture.scenario, fixture.driver_root);
        }
        return Ok(());
    };
    let fixture = roots::ALL.iter().find(|fixture| fixture.name == name);
    let fixture = fixture.ok_or_else(|| std::io::Error::other("there is no such root"))?;
    let left_out = fixture.root().build(Path::new(dir))?;
    if left_out.is_empty() {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("left out: {left_out:?}")))
    }
}
