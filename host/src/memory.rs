//! What was freed goes back to the system.

/// The allocator gives pages back some time after they were freed, when it next has something to do with pages; a host whose
/// largest copy has just gone may have nothing to do for long. Takes some milliseconds. Without effect where another allocator is
/// the program's.
#[expect(unsafe_code, reason = "a function of the allocator, which may be called at any time from any thread")]
pub(crate) fn give_back() {
    // SAFETY: it takes no pointers, and locks what it needs itself.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
