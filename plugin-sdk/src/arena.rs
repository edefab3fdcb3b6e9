//! The allocator of a component: it hands out memory upwards and takes back only what lies on top.
//!
//! A call runs in a fresh instance, and all memory goes with it; so freeing is wasted work, and an allocation is an
//! addition. The first pages are part of the image: no `memory.grow`, which costs the host two `mprotect`s each. What is
//! beyond counts against `spec.limits.memory`.

#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::{Cell, UnsafeCell},
};

#[global_allocator]
static ARENA: Arena = Arena { next: Cell::new(0), end: Cell::new(0) };

/// Together with 64 KiB of stack and the data of a usual plugin this fills four pages.
const FIRST: usize = 128 * 1024;
/// The least that `memory.grow` is asked for.
const CHUNK: usize = 256 * 1024;
const PAGE: usize = 64 * 1024;

#[repr(align(16))]
struct First(UnsafeCell<[u8; FIRST]>);

// SAFETY: a component has one thread.
unsafe impl Sync for First {}

static FIRST_CHUNK: First = First(UnsafeCell::new([0; FIRST]));

/// Addresses; `end` is 0 before the first allocation.
struct Arena {
    next: Cell<usize>,
    end: Cell<usize>,
}

// SAFETY: a component has one thread.
unsafe impl Sync for Arena {}

impl Arena {
    /// Makes room for `size` bytes at this alignment, and says where; none when there is no more memory.
    fn room(&self, size: usize, align: usize) -> Option<usize> {
        if self.end.get() == 0 {
            let first = FIRST_CHUNK.0.get() as usize;
            self.next.set(first);
            self.end.set(first + FIRST);
        }
        match self.fits(size, align) {
            Some(start) => Some(start),
            None => {
                self.grow(size.checked_add(align)?)?;
                self.fits(size, align)
            }
        }
    }

    fn fits(&self, size: usize, align: usize) -> Option<usize> {
        let start = self.next.get().checked_next_multiple_of(align)?;
        (start.checked_add(size)? <= self.end.get()).then_some(start)
    }

    /// More memory; somebody else may have grown it meanwhile, then the rest of the old chunk is lost.
    fn grow(&self, least: usize) -> Option<()> {
        let pages = least.max(CHUNK).div_ceil(PAGE);
        let before = core::arch::wasm32::memory_grow(0, pages);
        if before == usize::MAX {
            return None;
        }
        let start = before * PAGE;
        if start != self.end.get() {
            self.next.set(start);
        }
        self.end.set(start + pages * PAGE);
        Some(())
    }
}

// SAFETY: `room` answers memory that nobody else has: it lies between `next` and `end` of a chunk that is ours, and `next`
// moves behind it. It moves back only over the block on top, when that is given back.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.room(layout.size(), layout.align()) {
            Some(start) => {
                self.next.set(start + layout.size());
                start as *mut u8
            }
            None => std::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if block as usize + layout.size() == self.next.get() {
            self.next.set(block as usize);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let on_top = block as usize + layout.size() == self.next.get();
        if on_top && (block as usize).checked_add(size).is_some_and(|end| end <= self.end.get()) {
            self.next.set(block as usize + size);
            return block;
        }
        if size <= layout.size() {
            return block;
        }
        // SAFETY: the caller keeps the promises of `realloc`; the new block is apart from the old one or lies on top of it
        // only if it was moved, and `copy` minds an overlap.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                std::ptr::copy(block, moved, layout.size());
            }
            moved
        }
    }
}

/// Where the host puts what it hands over. Without this one, libc's would be linked, and its whole allocator with it.
///
/// # Safety
/// The canonical ABI calls it: `old` is null, or a block of `old_size` bytes from here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cabi_realloc(old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
    if size == 0 {
        return std::ptr::without_provenance_mut(align);
    }
    // SAFETY: the canonical ABI gives alignments that are powers of two, and the size of the block that `old` is.
    let block = unsafe {
        if old_size == 0 {
            ARENA.alloc(Layout::from_size_align_unchecked(size, align))
        } else {
            ARENA.realloc(old, Layout::from_size_align_unchecked(old_size, align), size)
        }
    };
    if block.is_null() {
        core::arch::wasm32::unreachable();
    }
    block
}
