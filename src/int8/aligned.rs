//! Memory that starts on a cache line; where there is much of it, on pages of 2 MiB.
//!
//! A pass sweeps all weights, and at the larger views as much again of activations: more
//! pages of 4 KiB than any address translation cache holds. What is asked of the kernel
//! with `madvise` it may refuse; nothing but time depends on it.
#![allow(unsafe_code)]

use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use std::alloc::{Layout, handle_alloc_error};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// Bytes of a cache line, and of the widest register.
const LINE_BYTES: usize = 64;

/// What x86-64, and AArch64 with pages of 4 KiB, map by one entry.
const HUGE_BYTES: usize = 2 << 20;

/// Types any byte of which is a value.
pub trait Byte: Copy {}
impl Byte for u8 {}
impl Byte for i8 {}

/// Pages of our own, zero at first. Shared by pieces that do not overlap.
#[derive(Debug)]
struct Block {
    mapped: NonNull<c_void>,
    mapped_bytes: usize,
    /// Where the first piece may start: on a large page, if there is room for one.
    start: usize,
    bytes: usize,
}

// SAFETY: nothing of it changes but what its pieces hold, and each is in one hand.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    fn new(bytes: usize) -> Self {
        let bytes = bytes.max(1);
        let is_large = bytes >= HUGE_BYTES;
        let spare = if is_large { HUGE_BYTES } else { 0 };
        let mapped_bytes = bytes + spare;
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, wherever the kernel has room.
        let mapped = unsafe { mm::mmap_anonymous(null_mut(), mapped_bytes, prot, flags) };
        let Some(mapped) = mapped.ok().and_then(NonNull::new) else {
            handle_alloc_error(Layout::array::<u8>(mapped_bytes).unwrap_or(Layout::new::<u8>()));
        };
        let start = if is_large { mapped.cast::<u8>().align_offset(HUGE_BYTES) } else { 0 };
        if is_large && !cfg!(miri) {
            // SAFETY: within the mapping; the advice changes no byte. A kernel without large
            // pages refuses it, and all goes on as it is.
            let _ = unsafe {
                mm::madvise(mapped.byte_add(start).as_ptr(), bytes, Advice::LinuxHugepage)
            };
        }
        Self { mapped, mapped_bytes, start, bytes }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; no piece outlives its block.
        let _ = unsafe { mm::munmap(self.mapped.as_ptr(), self.mapped_bytes) };
    }
}

/// Bytes whose first lies on a 64-byte boundary, so that loads at multiples of 64 straddle
/// no two cache lines.
#[derive(Debug)]
pub struct Aligned<T> {
    /// `None`: of length 0.
    block: Option<Arc<Block>>,
    /// From the start of the mapping.
    start: usize,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { block: None, start: 0, len: 0, of: PhantomData }
    }
}

impl<T: Byte> Aligned<T> {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let block = Block::new(len);
        Self { start: block.start, block: Some(Arc::new(block)), len, of: PhantomData }
    }

    /// At least `len` values. What was there is forgotten where it must grow.
    pub fn at_least(&mut self, len: usize) -> &mut [T] {
        if self.len < len {
            // The old one goes first: both need not fit.
            *self = Self::default();
            *self = Self::zeroed(len);
        }
        self.as_mut_slice()
    }

    fn pointer(&self) -> NonNull<T> {
        // SAFETY: `start + len` is within the mapping.
        self.block.as_ref().map_or(NonNull::dangling(), |block| unsafe {
            block.mapped.byte_add(self.start).cast()
        })
    }

    pub fn as_slice(&self) -> &[T] {
        // SAFETY: `len` bytes from `start` on are this piece's alone, and any byte is a `T`.
        unsafe { std::slice::from_raw_parts(self.pointer().as_ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.pointer().as_ptr(), self.len) }
    }
}

/// Hands out pieces of large blocks: layers are smaller than a large page, a network is not.
#[derive(Debug, Default)]
pub struct Shelf {
    block: Option<Arc<Block>>,
    used: usize,
}

impl Shelf {
    /// A block's pages are taken as they are written, so one too large costs nothing.
    const BLOCK_BYTES: usize = 32 << 20;

    /// `len` zeros.
    pub fn take<T: Byte>(&mut self, len: usize) -> Aligned<T> {
        let fits = |block: &&Arc<Block>| block.bytes - self.used >= len;
        if self.block.as_ref().filter(fits).is_none() {
            (self.block, self.used) = (Some(Arc::new(Block::new(len.max(Self::BLOCK_BYTES)))), 0);
        }
        let start = self.block.as_ref().map_or(0, |block| block.start) + self.used;
        let used = (self.used + len).next_multiple_of(LINE_BYTES);
        self.used = self.block.as_ref().map_or(0, |block| used.min(block.bytes));
        Aligned { block: self.block.clone(), start, len, of: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_aligned_and_their_own() {
        let mut shelf = Shelf::default();
        let lens = [0, 1, 63, 64, 65, 3 << 20, 40 << 20, 7, 31 << 20, 2 << 20];
        let mut pieces: Vec<Aligned<u8>> = lens.iter().map(|&len| shelf.take(len)).collect();
        drop(shelf);
        for (i, piece) in pieces.iter_mut().enumerate() {
            assert_eq!(
                (piece.as_slice().len(), piece.as_slice().as_ptr().align_offset(64)),
                (lens[i], 0)
            );
            assert!(piece.as_slice().iter().all(|&b| b == 0), "piece {i} was written by another");
            piece.as_mut_slice().fill(1 + i as u8);
        }
        for (i, piece) in pieces.iter().enumerate() {
            assert!(piece.as_slice().iter().all(|&b| b == 1 + i as u8), "piece {i}");
        }
    }

    #[test]
    fn grows_and_is_empty_at_first() {
        let mut memory = Aligned::<i8>::default();
        assert!(memory.as_slice().is_empty() && memory.at_least(0).is_empty());
        memory.at_least(5)[4] = 3;
        assert_eq!(memory.at_least(2), [0, 0, 0, 0, 3]);
        assert!(memory.at_least(5 << 20).iter().all(|&b| b == 0));
        assert_eq!(memory.as_slice().as_ptr().align_offset(HUGE_BYTES), 0);
    }
}
