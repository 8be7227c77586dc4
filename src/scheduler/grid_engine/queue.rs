//! `qstat -f -u ACCOUNT -r -F RESOURCE -xml` in, hosts' queues and the tasks on them out. One answer serves both: which
//! tasks there are, and what hosts have. Plain `qstat -xml` answers read as well.
//!
//! The state of a task and the state of the queue it runs in are two things: a task on a lost host stays `r` for ever,
//! and only the queue's `u` tells that nobody knows.

use std::borrow::Cow;

use super::XmlError;
use super::xml::{Part, read};
use crate::model::job::JobId;
use crate::scheduler::Closed;

/// Most tasks in one answer. Grid Engine's own limit for one array is 75,000.
const TASKS_MAX: usize = 1_000_000;

/// What one answer shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue<'x> {
    pub instances: Vec<Instance<'x>>,
    pub entries: Vec<Entry<'x>>,
}

/// One queue on one host, `all.q@node1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instance<'x> {
    pub name: Cow<'x, str>,
    pub slots: u32,
    pub slots_used: u32,
    /// Letters of `qstat(1)`: `u` nobody hears from the host, `d` disabled, `E` error, `s` suspended, and more.
    pub state: Cow<'x, str>,
    /// What is left of the resources that were asked about.
    pub resources: Vec<(Cow<'x, str>, Cow<'x, str>)>,
}

impl Instance<'_> {
    pub fn host(&self) -> &str {
        host_of(&self.name)
    }

    /// Nobody hears from the host.
    pub fn is_lost(&self) -> bool {
        self.state.contains('u')
    }

    /// Why no job begins here until an operator types something. Other states pass by themselves: a job that waits for that
    /// tells its own reason.
    pub fn closed(&self) -> Option<Closed> {
        let (letter, word, option) = [('d', "disabled", "-e"), ('E', "in error", "-cq"), ('s', "suspended", "-usq")]
            .into_iter()
            .find(|(letter, ..)| self.state.contains(*letter))?;
        let before = if letter == 'E' { "`qstat -explain E -f` says why; when that is mended, " } else { "" };
        let name = &self.name;
        Some(Closed { why: format!("its queue {name} is {word}"), mend: format!("{before}`qmod {option} {name}`") })
    }
}

/// The host of a queue instance.
fn host_of(instance: &str) -> &str {
    instance.rsplit_once('@').map_or(instance, |(_, host)| host)
}

/// One line of the answer: a job, or tasks of an array that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'x> {
    pub job: JobId,
    /// Job name in full.
    pub name: Cow<'x, str>,
    pub owner: Cow<'x, str>,
    /// Letters as the tool gives them, such as `qw`, `r`, `Eqw`.
    pub letters: Cow<'x, str>,
    pub state: Folded,
    /// Queue instance it runs in; empty while it waits.
    pub instance: Cow<'x, str>,
    /// Its tasks; `[1]` of a job that is no array.
    pub tasks: Vec<u32>,
    /// Slots that each task holds.
    pub slots: u32,
    /// Hard requests, as written: `vm_mem` → `5G`.
    pub requests: Vec<(Cow<'x, str>, Cow<'x, str>)>,
}

impl<'x> Entry<'x> {
    fn on(instance: Cow<'x, str>) -> Self {
        Self {
            job: JobId(0),
            name: Cow::default(),
            owner: Cow::default(),
            letters: Cow::default(),
            state: Folded::Pending,
            instance,
            tasks: Vec::new(),
            slots: 1,
            requests: Vec::new(),
        }
    }

    pub fn host(&self) -> Option<&str> {
        (!self.instance.is_empty()).then(|| host_of(&self.instance))
    }
}

/// A task's state without the words that need a second question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    Pending,
    Held,
    Transferring,
    Running,
    Suspended,
    Deleting,
    Unknown,
    Error,
}

/// Folds the letters of `qstat(1)`, and whether the task is on a host.
///
/// `E` error, `d` deletion asked for, `s` `S` `T` `N` `P` suspended by a person, its queue, a threshold, a newer kind,
/// `h` held, `t` transferring to its host, `r` running, `R` restarted, `q` queued, `w` waiting. A letter that we do not
/// know changes nothing: a task on a host runs, any other waits.
pub(super) fn fold(letters: &str, on_host: bool) -> Folded {
    let has = |any: &str| letters.chars().any(|letter| any.contains(letter));
    if has("E") {
        Folded::Error
    } else if has("d") {
        Folded::Deleting
    } else if on_host && has("sSTNP") {
        Folded::Suspended
    } else if on_host && has("t") {
        Folded::Transferring
    } else if on_host && has("r") {
        Folded::Running
    } else if has("h") {
        Folded::Held
    } else if on_host && !has("qw") {
        Folded::Running
    } else {
        Folded::Pending
    }
}

/// Reads an answer.
pub(super) fn parse(xml: &str) -> Result<Queue<'_>, XmlError> {
    let mut reader = QueueReader::default();
    read(xml, "job_info", |part| reader.part(part))?;
    if reader.is_unnumbered {
        return Err(XmlError::Unnumbered);
    }
    if reader.tasks > TASKS_MAX {
        return Err(XmlError::TooMuch { limit: TASKS_MAX, what: "tasks" });
    }
    Ok(reader.finish())
}

#[derive(Default)]
struct QueueReader<'x> {
    queue: Queue<'x>,
    instance: Option<Instance<'x>>,
    entry: Option<Entry<'x>>,
    label: Cow<'x, str>,
    tasks: usize,
    /// A job came without its number: to pass over it would be to take it for gone.
    is_unnumbered: bool,
}

impl<'x> QueueReader<'x> {
    fn part(&mut self, part: Part<'x>) {
        match part {
            Part::Open { name: "Queue-List", .. } => self.instance = Some(Instance::default()),
            Part::Open { name: "job_list", .. } => {
                let instance = self.instance.as_ref().map(|instance| instance.name.clone()).unwrap_or_default();
                self.entry = Some(Entry::on(instance));
            }
            Part::Open { name: "resource" | "hard_request", attributes } => {
                self.label = attributes.get("name").unwrap_or_default();
            }
            Part::Open { .. } => {}
            Part::Close { name: "Queue-List", .. } => self.queue.instances.extend(self.instance.take()),
            Part::Close { name: "job_list", .. } => {
                let entry = self.entry.take();
                self.is_unnumbered |= entry.as_ref().is_some_and(|entry| entry.job.0 == 0);
                self.queue.entries.extend(entry);
            }
            Part::Close { name, text } => self.field(name, text),
        }
    }

    fn field(&mut self, name: &str, text: Cow<'x, str>) {
        match (&mut self.entry, &mut self.instance) {
            (Some(entry), _) => match name {
                "JB_job_number" => entry.job = JobId(text.parse().unwrap_or(0)),
                // With `-r` the whole name stands apart; where it does not, the other is whole.
                "full_job_name" => entry.name = text,
                "JB_name" if entry.name.is_empty() => entry.name = text,
                "JB_owner" => entry.owner = text,
                "state" => entry.letters = text,
                "queue_name" if !text.is_empty() => entry.instance = text,
                "slots" => entry.slots = text.parse().unwrap_or(1),
                "tasks" => {
                    entry.tasks = task_numbers(&text, TASKS_MAX.saturating_sub(self.tasks) + 1);
                    self.tasks += entry.tasks.len();
                }
                "hard_request" => entry.requests.push((std::mem::take(&mut self.label), text)),
                _ => {}
            },
            (None, Some(instance)) => match name {
                "name" => instance.name = text,
                "slots_used" => instance.slots_used = text.parse().unwrap_or(0),
                "slots_total" => instance.slots = text.parse().unwrap_or(0),
                "state" => instance.state = text,
                "resource" => instance.resources.push((std::mem::take(&mut self.label), text)),
                _ => {}
            },
            (None, None) => {}
        }
    }

    fn finish(self) -> Queue<'x> {
        let mut queue = self.queue;
        let lost: std::collections::BTreeSet<&str> =
            queue.instances.iter().filter(|instance| instance.is_lost()).map(|instance| &*instance.name).collect();
        for entry in &mut queue.entries {
            let on_host = !entry.instance.is_empty();
            entry.state = fold(&entry.letters, on_host);
            if lost.contains(&*entry.instance) {
                entry.state = Folded::Unknown;
            }
            if entry.tasks.is_empty() {
                entry.tasks = vec![1];
            }
        }
        queue
    }
}

/// The numbers of `3-9:2,12`; at most `limit` of them.
fn task_numbers(text: &str, limit: usize) -> Vec<u32> {
    let range = |part: &str| {
        let (bounds, step) = part.split_once(':').unwrap_or((part, "1"));
        let (first, last) = bounds.split_once('-').unwrap_or((bounds, bounds));
        let number = |text: &str| text.trim().parse::<u32>().ok();
        Some((number(first)?..=number(last)?).step_by(number(step)?.max(1) as usize))
    };
    text.split(',').filter_map(range).flatten().take(limit).collect()
}

/// A size as the tools write it, in MiB: `5G`, `1.000G`, `512m`, `5368709120.000000`. `K M G T` count in 1024, `k m g t`
/// in 1000 (sge_types(1)).
pub(super) fn size_mib(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: f64 = match &text[digits.len()..] {
        "" => 1.0,
        "k" => 1e3,
        "K" => 1024.0,
        "m" => 1e6,
        "M" => 1024.0 * 1024.0,
        "g" => 1e9,
        "G" => 1024.0 * 1024.0 * 1024.0,
        "t" => 1e12,
        "T" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = digits.parse::<f64>().ok().filter(|bytes| bytes.is_finite())? * unit;
    // A consumable may be overdrawn, which shows as a negative rest. Sizes are far below 2^53.
    Some((bytes.max(0.0) / (1024.0 * 1024.0)).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_fold() {
        let on_host = ["r", "t", "Rr", "hr", "s", "S", "T", "N", "dr", "dt", "ds", "Er", "x"];
        let folded = on_host.map(|letters| fold(letters, true));
        use Folded::*;
        let expected = [
            Running,
            Transferring,
            Running,
            Running,
            Suspended,
            Suspended,
            Suspended,
            Suspended,
            Deleting,
            Deleting,
            Deleting,
            Error,
            Running,
        ];
        assert_eq!(folded, expected);
        let waiting = ["qw", "hqw", "Eqw", "Rq", "hRwq", "dqw", "x"].map(|letters| fold(letters, false));
        assert_eq!(waiting, [Pending, Held, Error, Pending, Held, Deleting, Pending]);
    }

    #[test]
    fn a_queue_that_an_operator_must_open_is_closed() {
        let closed = |state: &str| {
            let instance = Instance { name: "all.q@h2".into(), state: state.into(), ..Instance::default() };
            instance.closed().map(|Closed { why, mend }| format!("{why}: {mend}"))
        };
        assert_eq!(["", "a", "aS", "C"].map(closed), [const { None }; 4]);
        let said = ["d", "adE", "E", "s"].map(closed).map(Option::unwrap);
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn a_job_without_a_number_is_not_passed_over() {
        let answer = |number: &str| {
            format!(
                "<job_info><queue_info><job_list><JB_job_number>{number}</JB_job_number></job_list></queue_info></job_info>"
            )
        };
        assert_eq!(parse(&answer("7")).unwrap().entries[0].job, JobId(7));
        for number in ["", "7a", "-1", "18446744073709551616"] {
            assert_eq!(parse(&answer(number)), Err(XmlError::Unnumbered), "{number:?}");
        }
    }

    #[test]
    fn ranges_and_sizes() {
        assert_eq!(task_numbers("3-6:1", 100), [3, 4, 5, 6]);
        assert_eq!(task_numbers("1,4-8:2,11", 100), [1, 4, 6, 8, 11]);
        assert_eq!(task_numbers("undefined", 100), [0_u32; 0]);
        assert_eq!(task_numbers("1-4000000000:0", 3), [1, 2, 3]);
        assert_eq!(size_mib("1.000G"), Some(1024));
        assert_eq!(size_mib("512M"), Some(512));
        assert_eq!(size_mib("5368709120.000000"), Some(5120));
        assert_eq!(size_mib("-1.5G"), Some(0));
        assert_eq!(size_mib("-"), None);
        assert_eq!(size_mib("5Q"), None);
    }
}
