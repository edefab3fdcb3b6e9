//! What no neighbour must notice: loops, bombs, floods, traps.

use std::hint::black_box;

use plugin_sdk::prelude::*;

use crate::Probe;

/// None if the mode is none of these.
pub fn as_asked(mode: &str, probe: &Probe) -> Option<Plan> {
    match mode {
        "loop" => endless(),
        "memory" => memory(),
        "recursion" => println!("{}", recursion(0)),
        "panic" => panic!("the probe panics as asked: {}", probe.spec.text),
        "trap" => trap(),
        "sleep" => std::thread::sleep(std::time::Duration::from_millis(probe.spec.size as u64)),
        "log-flood" => (0..probe.spec.size).for_each(|line| tracing::info!(line, "a line of a flood")),
        "print-flood" => (0..probe.spec.size).for_each(|line| println!("line {line} of a flood")),
        "giant-status" => return Some(Plan::new().status(json!({ "text": "x".repeat(probe.spec.size) }))),
        "giant-message" => return Some(Plan::new().condition(Condition::no("Ready", "Giant", "x".repeat(probe.spec.size)))),
        "giant-object" => {
            let child = json!({ "metadata": { "name": "giant" }, "data": { "text": "x".repeat(probe.spec.size) } });
            return Some(Plan::new().own(probe.child("v1/ConfigMap", child)));
        }
        _ => return None,
    }
    Some(Plan::new())
}

fn endless() {
    let mut turns: u64 = 0;
    while black_box(true) {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Megabyte after megabyte, each touched.
fn memory() {
    let mut all = Vec::new();
    while black_box(true) {
        all.push(black_box(vec![1_u8; 1 << 20]));
    }
}

fn recursion(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if black_box(true) { recursion(depth + 1) + frame.iter().sum::<u64>() } else { 0 }
}

fn trap() {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}
