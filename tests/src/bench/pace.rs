//! P10: objects that come at a steady pace, each from its creation to its status.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::MissedTickBehavior;

use super::{
    Rounds, Scale,
    contender::{self, Contender},
    floor::Floor,
    record::{Bench, Row, Versus, column},
    stage::{HELLO, Observer, Stage, hello},
};
use crate::world::World;

pub static BENCH: Bench = Bench {
    ids: &["P10"],
    title: "from the creation of an object to Ready, at 25 and 100 per second",
    how: "From the API server's answer to the creation to its answer to the status that says Ready. Objects come whether or not the \
          earlier ones are done. Every contender is warm and alone at its time. The floor is a bare client that begins its two writes \
          when its creation is answered, without a watch.",
    target: "p50 at most that of the two bare writes + 1 ms, p99 below every peer's.",
    against: "floor",
    columns: &[
        column("p50_ms_at_25", "25/s: p50, ms", Versus::More),
        column("p99_ms_at_25", "p99, ms", Versus::Nothing),
        column("p50_ms_at_100", "100/s: p50, ms", Versus::More),
        column("p99_ms_at_100", "p99, ms", Versus::Nothing),
    ],
    run: |scale| Box::pin(run(scale)),
};

/// Objects per second, and the names of the figures.
const PACES: [(u64, &str, &str); 2] = [(25, "p50_ms_at_25", "p99_ms_at_25"), (100, "p50_ms_at_100", "p99_ms_at_100")];

async fn run(scale: Scale) -> Result<Rounds> {
    let of = scale.pace_seconds;
    contender::in_turns(scale, async |world| floor(world, of).await, async |world, contender| one(world, contender, of).await)
        .await
}

async fn floor(world: &World, seconds: u64) -> Result<Row> {
    let stage = Stage::new(world, "floor").await?;
    let floor = Floor::new(&stage).await?;
    let mut row = Row::new("floor", &[]);
    let mut begin = 0;
    for (per_second, p50, p99) in PACES {
        let mut observer = stage.observe()?;
        let count = (per_second * seconds) as usize;
        at_pace(per_second, begin..begin + count, async |i| {
            let created = stage.scene.cluster().create(&stage.namespace, &hello(i)).await?;
            floor.write(&created).await
        })
        .await?;
        put(&mut row, [p50, p99], &mut observer, count).await?;
        begin += count;
    }
    Ok(row)
}

async fn one(world: &World, contender: Contender, seconds: u64) -> Result<Row> {
    let stage = Stage::new(world, &contender.label()).await?;
    contender.prepare(&stage).await?;
    let mut observer = stage.observe()?;
    let operator = contender.start(&stage).await?;
    let warm = async {
        observer.until("it watches both kinds", async |seen| Ok(seen.watches >= 2)).await?;
        stage.create_hello(0).await?;
        observer.until("the first is Ready", async |seen| Ok(!seen.ready.is_empty())).await?;
        observer.quiet().await
    };
    warm.await.with_context(|| operator.log_tail())?;
    let mut row = Row::new(&contender.name(), &[]);
    let mut begin = 1;
    for (per_second, p50, p99) in PACES {
        let mut observer = stage.observe()?;
        let count = (per_second * seconds) as usize;
        at_pace(per_second, begin..begin + count, async |i| stage.create_hello(i).await).await?;
        put(&mut row, [p50, p99], &mut observer, count).await.with_context(|| operator.log_tail())?;
        begin += count;
    }
    operator.stop().await?;
    stage.check(begin).await?;
    Ok(row)
}

/// Begins one at each tick, whether or not the earlier ones have ended, and waits for all.
async fn at_pace(per_second: u64, numbers: std::ops::Range<usize>, create: impl AsyncFn(usize) -> Result<()>) -> Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(per_second)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut running = futures::stream::FuturesUnordered::new();
    for i in numbers {
        while tokio::select! {
            biased;
            _ = ticks.tick() => false,
            Some(ended) = futures::StreamExt::next(&mut running) => { let ended: Result<()> = ended; ended?; true }
        } {}
        running.push(create(i));
    }
    while let Some(ended) = futures::StreamExt::next(&mut running).await {
        ended?;
    }
    Ok(())
}

async fn put(row: &mut Row, [p50, p99]: [&str; 2], observer: &mut Observer, count: usize) -> Result<()> {
    observer.until("all are Ready", async |seen| Ok(seen.ready.len() >= count && seen.created.len() >= count)).await?;
    observer.quiet().await?;
    let seen = &observer.seen;
    let mut times: Vec<f64> =
        seen.created.iter().filter_map(|(name, created)| Some((seen.ready.get(name)? - created) * 1000.0)).collect();
    ensure!(times.len() == count, "{} of {count} {HELLO} were seen from creation to Ready", times.len());
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get(((count - 1) as f64 * share) as usize).copied().unwrap_or_default();
    row.figures.extend([(p50.to_owned(), at(0.5)), (p99.to_owned(), at(0.99))]);
    Ok(())
}
