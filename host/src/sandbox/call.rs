//! One reconcile: a fresh store, one call, its limits.
//!
//! Nothing is left of it but its [`Outcome`]: the store goes with the call, however that ends.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use wasmtime::{Engine, Store, UpdateDeadline};

use super::{
    limits::{Limits, Meter, Quota},
    load::Loaded,
    outcome::{self, Outcome},
    ticker::Ticker,
};
use crate::{
    capability::{
        Grant, HasPowers, Powers, Reads,
        bindings::{exports::reef::plugin::reconciler as wit, reef::plugin::types::ObjectRef},
        reads::Made,
    },
    contract::Request,
    names::{Memory, PluginId},
};

/// Bytes that a guest may pass to the host at once: its whole plan, for one.
pub const ANSWER_BYTES: usize = 4 << 20;

/// Handles that a guest may hold at once.
const MAX_HANDLES: usize = 1024;

/// Under which conditions a reconcile runs.
pub struct Call {
    pub plugin: PluginId,
    pub grant: Arc<Grant>,
    pub reads: Arc<dyn Reads>,
    pub limits: Limits,
}

/// What a reconcile used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Time that the guest itself ran.
    pub cpu: Duration,
    /// Time from beginning to end, waiting for reads included.
    pub wall: Duration,
    /// The most linear memory that it had.
    pub memory: Memory,
}

/// What a store carries.
pub struct State {
    powers: Powers,
    quota: Quota,
    meter: Arc<Meter>,
}

impl HasPowers for State {
    fn powers(&mut self) -> &mut Powers {
        &mut self.powers
    }
}

pub(super) async fn run(engine: &Engine, ticker: &Ticker, loaded: &Loaded, request: Request, call: Call) -> Outcome {
    let meter = Arc::new(Meter::new(call.limits.cpu));
    let mut store = store(engine, &request, &call, meter.clone());
    let reconcile = measured(ticker, &meter, reconcile(&mut store, loaded, request));
    let ended = tokio::time::timeout(call.limits.deadline.0, reconcile).await;
    let State { powers, quota, .. } = store.data_mut();
    powers.journal.finish();
    let result = match ended {
        Ok(Ok(answer)) => outcome::answered(answer),
        Ok(Err(error)) => Err(outcome::stopped(&error, &powers.journal)),
        Err(_) => Err(outcome::late(call.limits.deadline, powers.reads.waiting().map(ToString::to_string))),
    };
    let read_failed = powers.reads.failed();
    let Made { objects, lists } = powers.reads.take();
    Outcome {
        result,
        read_failed,
        reads: objects,
        lists,
        usage: Usage { cpu: meter.spent(), wall: meter.elapsed(), memory: quota.peak() },
    }
}

fn store(engine: &Engine, request: &Request, call: &Call, meter: Arc<Meter>) -> Store<State> {
    let powers = Powers::new(request, &call.plugin, call.grant.clone(), call.reads.clone());
    let mut store = Store::new(engine, State { powers, quota: Quota::new(call.limits.memory), meter });
    store.limiter(|state| &mut state.quota);
    store.set_hostcall_fuel(ANSWER_BYTES);
    store.set_max_component_handles(MAX_HANDLES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|context| {
        context.data().meter.tick()?;
        Ok(UpdateDeadline::Yield(1))
    });
    store
}

async fn reconcile(
    store: &mut Store<State>,
    loaded: &Loaded,
    request: Request,
) -> wasmtime::Result<Result<wit::Plan, wit::Failure>> {
    let plugin = loaded.pre().instantiate_async(&mut *store).await?;
    plugin.reef_plugin_reconciler().call_reconcile(&mut *store, &asked(request)).await
}

fn asked(request: Request) -> wit::Request {
    let key = request.key;
    wit::Request {
        key: ObjectRef {
            api_version: key.kind.api_version(),
            kind: key.kind.kind.to_string(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        },
        object: request.object,
        settings: request.settings,
        now: request.now,
        seed: request.seed,
        attempt: request.attempt,
        extensions: "{}".to_owned(),
    }
}

/// Polls the call with the clock ticking and the meter running.
async fn measured<F: Future>(ticker: &Ticker, meter: &Meter, call: F) -> F::Output {
    let mut call = pin!(call);
    poll_fn(|context| {
        let _running = ticker.enter();
        meter.enter();
        let polled = call.as_mut().poll(context);
        meter.leave();
        polled
    })
    .await
}
