//! P9: objects that are there when an operator starts, until the last is Ready. P11: what it asks for when it starts again.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::{
    Rounds, Scale,
    contender::{self, Contender, Operator},
    floor::Floor,
    record::{Bench, Row, Versus, column},
    stage::Stage,
};
use crate::world::World;

pub static BENCH: Bench = Bench {
    ids: &["P9", "P11"],
    title: "drain of 2,000 existing objects to Ready, and a restart",
    how: "One ConfigMap with an owner reference and one status with a condition per Hello; every contender as the same account with the \
          same rights, alone on the API server at its time. The drain is from the first write to the answer that made the last object \
          Ready; what starting takes before is beside it. The floor is a bare client that makes the same two writes over 8 connections. \
          Then the operator is stopped and started again on the finished objects (P11), and with Reef a standby takes over.",
    target: "P9: at least 0.85 of the floor; 2.00 writes and 0 reads per object; at most 0.8 ms of processor time per object. P11: 0 \
             writes and 0 reads per object, after a restart and after a handover (asked of 10,000 objects).",
    against: "floor",
    columns: &[
        column("drain_s", "drain, s", Versus::Share),
        column("start_s", "start to first write, s", Versus::Nothing),
        column("writes", "writes per object", Versus::Nothing),
        column("reads", "reads per object", Versus::Nothing),
        column("cpu_ms", "CPU per object, ms", Versus::Nothing),
        column("rss_mib", "memory, MiB", Versus::Nothing),
        column("restart_writes", "restart: writes per object", Versus::Nothing),
        column("restart_reads", "restart: reads per object", Versus::Nothing),
        column("handover_writes", "handover: writes per object", Versus::Nothing),
        column("handover_reads", "handover: reads per object", Versus::Nothing),
    ],
    run: |scale| Box::pin(run(scale)),
};

async fn run(scale: Scale) -> Result<Rounds> {
    let of = scale.hellos;
    contender::in_turns(scale, async |world| floor(world, of).await, async |world, contender| one(world, contender, of).await)
        .await
}

async fn floor(world: &World, count: usize) -> Result<Row> {
    let stage = Stage::new(world, "floor").await?;
    stage.create_hellos(count).await?;
    let hellos = stage.hellos().await?;
    let floor = Floor::new(&stage).await?;
    let mut observer = stage.observe()?;
    floor.drain(&hellos).await?;
    observer.until("all are Ready", async |seen| Ok(seen.ready.len() >= count)).await?;
    stage.check(count).await?;
    let (first, last) = observer.seen.first_write.zip(observer.seen.last_ready()).context("nothing was written")?;
    Ok(Row::new("floor", &[("drain_s", last - first), ("writes", observer.seen.writes as f64 / count as f64), ("reads", 0.0)]))
}

async fn one(world: &World, contender: Contender, count: usize) -> Result<Row> {
    let stage = Stage::new(world, &contender.label()).await?;
    stage.create_hellos(count).await?;
    let mut row = Row::new(&contender.name(), &[]);
    contender.prepare(&stage).await?;
    let operator = drain(&stage, contender, count, &mut row).await?;
    operator.stop().await?;
    let operator = restart(&stage, contender, count, &mut row).await?;
    if matches!(contender, Contender::Reef { .. }) {
        handover(&stage, contender, &operator, count, &mut row).await?;
    } else {
        operator.stop().await?;
    }
    stage.check(count).await?;
    Ok(row)
}

async fn drain(stage: &Stage<'_>, contender: Contender, count: usize, row: &mut Row) -> Result<Operator> {
    let mut observer = stage.observe()?;
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let operator = contender.start(stage).await?;
    observer.until("all are Ready", async |seen| Ok(seen.ready.len() >= count)).await.with_context(|| operator.log_tail())?;
    let (cpu, memory) = operator.usage()?;
    observer.quiet().await?;
    stage.check(count).await?;
    let (first, last) = observer.seen.first_write.zip(observer.seen.last_ready()).context("nothing was written")?;
    let per_object = count as f64;
    put(
        row,
        &[
            ("drain_s", last - first),
            ("start_s", first - began),
            ("writes", observer.seen.writes as f64 / per_object),
            ("reads", observer.seen.reads as f64 / per_object),
            ("cpu_ms", cpu * 1000.0 / per_object),
            ("rss_mib", memory),
        ],
    );
    Ok(operator)
}

async fn restart(stage: &Stage<'_>, contender: Contender, count: usize, row: &mut Row) -> Result<Operator> {
    let mut observer = stage.observe()?;
    let operator = contender.start(stage).await?;
    observer
        .until("each was looked at again", async |_| Ok(operator.reconciles().await? >= count as f64))
        .await
        .with_context(|| operator.log_tail())?;
    observer.quiet().await?;
    let per_object = count as f64;
    put(
        row,
        &[
            ("restart_writes", observer.seen.writes as f64 / per_object),
            ("restart_reads", observer.seen.reads as f64 / per_object),
        ],
    );
    Ok(operator)
}

/// A second host that is ready takes over from the first one, which is told to end.
async fn handover(stage: &Stage<'_>, contender: Contender, first: &Operator, count: usize, row: &mut Row) -> Result<()> {
    let second = contender.start(stage).await?;
    if let Operator::Host(host) = &second {
        host.ready().await?;
    }
    let mut observer = stage.observe()?;
    first.stop().await?;
    observer
        .until("each was looked at by the second", async |_| Ok(second.reconciles().await? >= count as f64))
        .await
        .with_context(|| second.log_tail())?;
    observer.quiet().await?;
    let per_object = count as f64;
    put(
        row,
        &[
            ("handover_writes", observer.seen.writes as f64 / per_object),
            ("handover_reads", observer.seen.reads as f64 / per_object),
        ],
    );
    second.stop().await
}

fn put(row: &mut Row, figures: &[(&str, f64)]) {
    row.figures.extend(figures.iter().map(|(name, value)| ((*name).to_owned(), *value)));
}
