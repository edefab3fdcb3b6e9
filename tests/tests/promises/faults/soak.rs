//! Short samples of `make soak`.

use std::time::Duration;

use anyhow::Result;
use reef_tests::{
    control_plane::Setup,
    soak::{Hellos, Soak, Websites},
    world::{Scene, scene, scene_apart},
};

/// Promises: K1, C3, W7
/// Breaks it: anything that an outage leaves behind for good.
#[test]
fn a_while_of_edits_faults_and_kills_ends_as_a_clean_run_does() {
    scene("soak", async |scene: &Scene<'_>| -> Result<()> {
        let soak = Soak { seed: 1, objects: 40, time: Duration::from_secs(15), kills: 2, faults: 50 };
        let report = soak.run::<Hellos>(scene).await?;
        eprintln!("{report:?}");
        Ok(())
    });
}

/// Each site has two to four children, and says what its Deployment says.
///
/// Promises: W2, W3, W6, K1, C3
/// Breaks it: a child that stays, or is not repaired, because what would have told of it was lost.
#[test]
fn websites_exposed_and_hidden_amid_faults_and_kills_end_as_in_a_clean_run() {
    scene_apart("sites", Setup { no_rollouts: true, ..Setup::default() }, async |scene: &Scene<'_>| -> Result<()> {
        let soak = Soak { seed: 1, objects: 30, time: Duration::from_secs(12), kills: 2, faults: 40 };
        let report = soak.run::<Websites>(scene).await?;
        eprintln!("{report:?}");
        Ok(())
    });
}
