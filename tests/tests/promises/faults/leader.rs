//! The lease when the API server does not answer.

use anyhow::{Result, ensure};
use reef_tests::host::Host;

use super::{Stage, behind_proxy, greeted, hello};
use crate::{hello as hellos, probe::until};

const FLAGS: [&str; 4] =
    ["--lease-duration=3s", "--lease-renew-deadline=2s", "--lease-retry-period=400ms", "--request-timeout=2s"];

async fn leads(host: &Host) -> Result<bool> {
    Ok(host.metrics().await?.sum("leader_election_master_status", &[]) > 0.5)
}

/// The API server takes requests and does not answer, then takes nothing any more, then refuses: each time the host stops to
/// lead, goes on living, and leads again.
///
/// Promises: E2
/// Breaks it: a host that exits when its lease cannot be renewed, or that waits for the answer for ever.
#[test]
fn a_host_whose_api_server_does_not_answer_lives_and_leads_again() {
    behind_proxy("mute-server", &FLAGS, async |stage: &Stage<'_>| {
        let scene = stage.scene;
        hellos::install(scene).await?;
        let host = stage.start().await?;
        hello(scene, "greeting", "before").await?;
        greeted(scene, "greeting", "before").await?;
        for (i, rule) in
            ["any *: stall before", "any *: hole", "any *: cut before", "any *: answer 503 before"].into_iter().enumerate()
        {
            let mark = scene.world.audit.mark(scene.cluster()).await?;
            stage.proxy.script([rule])?;
            if rule.ends_with("hole") {
                stage.proxy.swallow();
            }
            until("the host knows that it does not lead", || async { leads(&host).await.is_ok_and(|leads| !leads) }).await?;
            let text = format!("after {i}");
            hello(scene, "greeting", &text).await?;
            scene.world.audit.mark(scene.cluster()).await?;
            let early = scene.world.audit.writes(mark, &scene.namespace)?;
            ensure!(early.is_empty(), "{rule}: {} writes without a lease", early.len());
            stage.proxy.script([""; 0])?;
            until("the host leads again", || async { leads(&host).await.is_ok_and(|leads| leads) }).await?;
            greeted(scene, "greeting", &text).await?;
            ensure!(host.exit().is_none(), "{rule}: the process has ended");
        }
        Ok(())
    });
}
