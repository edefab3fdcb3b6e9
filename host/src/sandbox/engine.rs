//! The engine: how guests are compiled, and where their memory comes from.
//!
//! Everything is tuned for instances that live for microseconds. The pool is sized by reconciles in flight, not by
//! plugins: what a slot keeps resident never comes back.

use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

/// The most memory that `spec.limits.memory` can ask for: the size of a slot in the pool.
pub const MAX_MEMORY: u64 = 64 << 20;
/// Core instances of one component; the pool has as many for each reconcile in flight.
pub const MAX_INSTANCES: u32 = 16;
/// Linear memories of one component: its own, and those of the stubs that some toolchains link beside it. All of them
/// count against `spec.limits.memory`; one that is not used costs addresses, not memory.
pub const MAX_MEMORIES: u32 = 4;
/// Tables of one component.
pub const MAX_TABLES: u32 = 4;
/// Elements of one table.
pub const MAX_TABLE_ELEMENTS: usize = 20_000;
/// A guest's call stack.
pub const MAX_STACK: usize = 256 << 10;

/// The engine that runs guests, `in_flight` at once.
pub fn runtime(in_flight: u32) -> wasmtime::Result<Engine> {
    let mut config = code();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(in_flight)));
    Engine::new(&config)
}

/// An engine that only compiles: its code runs in [`runtime`], but it reserves no memory for guests.
pub fn compiler() -> wasmtime::Result<Engine> {
    Engine::new(&code())
}

/// What decides about the code, and so about what fits together.
fn code() -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .concurrency_support(false)
        .memory_init_cow(false)
        .generate_address_map(false)
        .native_unwind_info(false)
        .wasm_backtrace_max_frames(None)
        .max_wasm_stack(MAX_STACK)
        .async_stack_size(2 * MAX_STACK);
    config
}

fn pool(in_flight: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(in_flight)
        .total_core_instances(in_flight.saturating_mul(MAX_INSTANCES))
        .total_memories(in_flight.saturating_mul(MAX_MEMORIES))
        .total_tables(in_flight.saturating_mul(MAX_TABLES))
        .total_stacks(in_flight)
        .max_core_instances_per_component(MAX_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .max_tables_per_module(MAX_TABLES)
        .max_memories_per_module(MAX_MEMORIES)
        .max_memory_size(MAX_MEMORY as usize)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_unused_warm_slots(0)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(64 << 10);
    pool
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    use super::*;

    #[test]
    fn what_the_one_compiles_the_other_runs() {
        let hash = |engine: &Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        assert_eq!(hash(&runtime(4).unwrap()), hash(&compiler().unwrap()));
    }
}
