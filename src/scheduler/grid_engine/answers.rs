//! What the tools print in plain text: the number of a submitted job, and why something was refused. Exit codes differ
//! even within one version's manual, so words decide whether nothing happened or nobody knows.

use crate::model::job::JobId;

/// The number in `qsub -terse`'s answer: `5`, or `6.1-300:1` of an array. Site scripts may print lines around it.
pub(super) fn submitted(stdout: &str) -> Option<JobId> {
    stdout.lines().rev().find_map(|line| {
        let number = line.trim().split('.').next()?;
        number.parse().ok().filter(|number| *number != 0).map(JobId)
    })
}

/// Whether an answer tells that the qmaster was not reached, or did not finish.
pub(super) fn is_silence(stderr: &str) -> bool {
    const SIGNS: [&str; 8] = [
        "commlib error",
        "unable to send message",
        "unable to contact qmaster",
        "unable to connect",
        "got select error",
        "got send error",
        "failed receiving gdi request",
        "timeout",
    ];
    let stderr = stderr.to_lowercase();
    SIGNS.iter().any(|sign| stderr.contains(sign))
}

/// Whether a failed `qsub` certainly made no job: it said so itself, or did not understand its arguments.
pub(super) fn is_refusal(stderr: &str) -> bool {
    let said_no = ["Unable to run job:", "Unable to read script file", "qsub: ", "denied:", "job rejected"];
    !is_silence(stderr) && said_no.iter().any(|words| stderr.contains(words))
}

/// Lines of a failed `qdel` that tell of more than jobs that are gone already.
pub(super) fn kill_complaints(output: &str) -> Vec<&str> {
    let harmless = |line: &str| {
        line.contains("does not exist")
            || line.contains("has registered the job")
            || line.contains("has deleted job")
            || line.contains("is already in deletion")
    };
    output.lines().map(str::trim).filter(|line| !line.is_empty() && !harmless(line)).collect()
}

/// What to do about an array that is larger than the cluster takes.
pub(super) fn too_many(told: &str) -> Option<String> {
    let larger = told.contains("job with more than") && told.contains("tasks");
    larger.then(|| format!("{told}; raise `max_aj_tasks` with `qconf -mconf`, or apply in parts with `--target`"))
}

/// What each host lacks, of `qsub -w v`; without the number of the job, which never was.
pub(super) fn never(stderr: &str) -> Option<String> {
    const REMARKS_MAX: usize = 3;
    let mut remarks: Vec<&str> =
        stderr.lines().filter_map(|line| line.trim().split_once(" cannot run ").map(|(_, remark)| remark)).collect();
    // Of a job for one host, what is said of the others goes without saying.
    remarks.retain(|remark| !remark.contains("qf:hostname="));
    let shown = remarks.iter().take(REMARKS_MAX).map(|remark| format!("it cannot run {remark}")).collect::<Vec<_>>();
    let more = remarks.len().saturating_sub(REMARKS_MAX);
    match (shown.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(shown.join("; ")),
        (false, more) => Some(format!("{}; and {more} more like these", shown.join("; "))),
    }
}

/// The words of a refusal without what the tools put around them.
pub(super) fn words(stderr: &str) -> String {
    let lines = stderr.lines().map(|line| line.trim().trim_start_matches("Unable to run job: "));
    lines.filter(|line| !line.is_empty() && *line != "Exiting.").collect::<Vec<_>>().join("; ")
}
