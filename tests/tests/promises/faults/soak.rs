//! A short sample of `make soak`.

use std::time::Duration;

use anyhow::Result;
use reef_tests::{
    soak::Soak,
    world::{Scene, scene},
};

/// Promises: K1, C3, W7
/// Breaks it: anything that an outage leaves behind for good.
#[test]
fn a_while_of_edits_faults_and_kills_ends_as_a_clean_run_does() {
    scene("soak", async |scene: &Scene<'_>| -> Result<()> {
        let soak = Soak { seed: 1, objects: 40, time: Duration::from_secs(15), kills: 2, faults: 50 };
        let report = soak.run(scene).await?;
        eprintln!("{report:?}");
        Ok(())
    });
}
