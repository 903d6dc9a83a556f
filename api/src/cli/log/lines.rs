//! Lines that gather for a moment and are written together: a system call a line, under a lock that every thread wants, is a good part
//! of what a request costs.

use std::{
    io::{self, Write},
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long the first of several lines waits for the others: what a process that is killed may not have written.
const GATHER: Duration = Duration::from_millis(1);
/// More than this does not gather: who logs then writes it, and waits where nobody reads.
const GATHERED_MAX_BYTES: usize = 256 * 1024;

/// Where lines go.
pub struct Lines<W>(Arc<Shared<W>>);

struct Shared<W> {
    gathered: Mutex<Vec<u8>>,
    filled: Condvar,
    /// The output, and what is being written to it. Held while writing, so that lines keep their order.
    output: Mutex<(W, Vec<u8>)>,
    /// Set at the end, when nobody writes for the others any more.
    at_once: AtomicBool,
}

/// Writes what has gathered when it is dropped; from then on each line is written at once.
#[must_use]
pub struct LastLines<W: Write>(Arc<Shared<W>>);

impl<W: Write + Send + 'static> Lines<W> {
    /// Lines for this output, written by a thread of their own. Hold the other part until the end of the process.
    ///
    /// # Errors
    ///
    /// Where the thread cannot be started.
    pub fn new(output: W) -> io::Result<(Self, LastLines<W>)> {
        let (gathered, filled) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { gathered, filled, output: Mutex::new((output, Vec::new())), at_once: AtomicBool::new(false) });
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                writer.wait();
                thread::sleep(GATHER);
                writer.write();
            }
        })?;
        Ok((Self(Arc::clone(&shared)), LastLines(shared)))
    }
}

impl<W: Write> Shared<W> {
    fn gathered(&self) -> MutexGuard<'_, Vec<u8>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to write.
    fn wait(&self) {
        drop(self.filled.wait_while(self.gathered(), |gathered| gathered.is_empty()).unwrap_or_else(PoisonError::into_inner));
    }

    fn add(&self, line: &[u8], at_once: bool) {
        let mut gathered = self.gathered();
        let is_first = gathered.is_empty();
        gathered.extend_from_slice(line);
        let is_much = gathered.len() > GATHERED_MAX_BYTES;
        drop(gathered);
        if at_once || is_much || self.at_once.load(Ordering::SeqCst) {
            self.write();
        } else if is_first {
            self.filled.notify_one();
        }
    }

    /// Writes what has gathered. Whom should an error be told?
    fn write(&self) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let (output, lines) = &mut *output;
        mem::swap(&mut *self.gathered(), lines);
        let _ = output.write_all(lines).and_then(|()| output.flush());
        lines.clear();
    }
}

impl<W: Write> Drop for LastLines<W> {
    fn drop(&mut self) {
        self.0.at_once.store(true, Ordering::SeqCst);
        self.0.write();
    }
}

impl<'a, W: Write + 'a> MakeWriter<'a> for Lines<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Line<'a, W> {
        Line { shared: &self.0, at_once: true }
    }

    /// Warnings and errors do not wait.
    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a, W> {
        Line { shared: &self.0, at_once: *metadata.level() <= Level::WARN }
    }
}

/// Takes one line.
pub struct Line<'a, W> {
    shared: &'a Shared<W>,
    at_once: bool,
}

impl<W: Write> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.shared.add(line, self.at_once);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn no_line_is_lost_at_the_end_or_after_it() {
        let output = Output::default();
        let (lines, last) = Lines::new(output.clone()).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let shared = Arc::clone(&lines.0);
                thread::spawn(move || (0..1_000).for_each(|i| shared.add(format!("{thread} {i}\n").as_bytes(), i % 100 == 0)))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        drop(last);
        let text = output.text();
        for thread in 0..4 {
            let prefix = format!("{thread} ");
            let numbers: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(|n| n.parse::<u32>().unwrap()).collect();
            assert_eq!(numbers, (0..1_000).collect::<Vec<_>>(), "every line of thread {thread}, in its order");
        }
        lines.0.add(b"late\n", false);
        assert!(output.text().ends_with("late\n"));
    }

    #[test]
    fn a_warning_is_written_at_once_and_what_came_before_it_first() {
        let output = Output::default();
        let (lines, last) = Lines::new(output.clone()).unwrap();
        lines.0.add(b"before\n", false);
        lines.0.add(b"warning\n", true);
        assert_eq!(output.text(), "before\nwarning\n");
        drop(last);
    }

    #[test]
    fn a_line_that_comes_alone_is_written_by_itself() {
        let output = Output::default();
        let (lines, last) = Lines::new(output.clone()).unwrap();
        lines.0.add(b"alone\n", false);
        let start = Instant::now();
        while output.text().is_empty() && start.elapsed() < Duration::from_secs(10) {
            thread::yield_now();
        }
        assert_eq!(output.text(), "alone\n");
        drop(last);
    }
}
