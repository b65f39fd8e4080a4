//! Runs a rendering where it can do no harm: on a thread of its own with a deep stack, a bound on its memory and on its
//! time. minijinja's fuel stops loops; what it can't stop is one operation on a value that a template has made
//! exponentially large (printing or comparing lists that hold the same list twice, 60 levels deep).
//!
//! A Rust thread can't be ended from outside. One that exceeds a bound is given up: it never returns from its next
//! allocation, and until then it only gets time that nothing else wants.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Committed as touched; ordinary templates touch a few pages.
const STACK_BYTES: usize = 256 << 20;

const POLL: Duration = Duration::from_millis(20);

pub struct Bounds {
    pub memory_bytes: i64,
    pub time: Duration,
    /// What takes too long is not given up: it goes on to its end, in time that nothing else wants, for nobody.
    pub may_finish: bool,
}

struct Watch {
    memory_left: AtomicI64,
    given_up: AtomicBool,
    done: AtomicBool,
    thread_id: AtomicI64,
}

thread_local! {
    static WATCH: Cell<*const Watch> = const { Cell::new(std::ptr::null()) };
}

struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

impl CountingAllocator {
    fn count(bytes: i64) {
        let watch = WATCH.try_with(Cell::get).unwrap_or(std::ptr::null());
        if watch.is_null() {
            return;
        }
        // SAFETY: `run_confined` keeps the watch alive for as long as this thread points to it.
        let watch = unsafe { &*watch };
        let left = watch.memory_left.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        if bytes > 0 && (left < 0 || watch.given_up.load(Ordering::Relaxed)) {
            watch.given_up.store(true, Ordering::Release);
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
    }
}

// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size() as i64);
        System.alloc(layout)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::count(-(layout.size() as i64));
        System.dealloc(pointer, layout)
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::count(new_size as i64 - layout.size() as i64);
        System.realloc(pointer, layout, new_size)
    }
}

/// `work`'s result, or None when it exceeded its bounds. A panic in `work` goes on in the caller.
pub fn run_confined<T: Send + 'static>(
    bounds: Bounds,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<Option<T>> {
    let watch = Arc::new(Watch {
        memory_left: AtomicI64::new(bounds.memory_bytes),
        given_up: AtomicBool::new(false),
        done: AtomicBool::new(false),
        thread_id: AtomicI64::new(0),
    });
    let inside = watch.clone();
    let caller = std::thread::current();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        // SAFETY: no arguments, no failure.
        inside.thread_id.store(unsafe { libc::syscall(libc::SYS_gettid) }, Ordering::Relaxed);
        WATCH.with(|cell| cell.set(Arc::as_ptr(&inside)));
        let result = catch_unwind(AssertUnwindSafe(work));
        WATCH.with(|cell| cell.set(std::ptr::null()));
        inside.done.store(true, Ordering::Release);
        caller.unpark();
        result
    })?;
    let start = Instant::now();
    while !watch.done.load(Ordering::Acquire) {
        std::thread::park_timeout(POLL);
        if watch.given_up.load(Ordering::Acquire) || start.elapsed() > bounds.time {
            watch.given_up.fetch_or(!bounds.may_finish, Ordering::Release);
            yield_to_others(watch.thread_id.load(Ordering::Relaxed));
            return Ok(None);
        }
    }
    match thread.join().and_then(|result| result) {
        Ok(value) => Ok(Some(value)),
        Err(panic) => resume_unwind(panic),
    }
}

#[cfg(target_os = "linux")]
fn yield_to_others(thread_id: i64) {
    // SAFETY: the parameters outlive the call; a thread that has ended meanwhile only makes it fail.
    unsafe {
        let parameters = libc::sched_param { sched_priority: 0 };
        libc::sched_setscheduler(thread_id as libc::pid_t, libc::SCHED_IDLE, &parameters);
    }
}

#[cfg(not(target_os = "linux"))]
fn yield_to_others(_thread_id: i64) {}
