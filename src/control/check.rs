//! Whether a host, and the cluster that jobs go to, can run guests: what `host check` asks, and each trial.

use std::path::Path;

use crate::error::chain;
use crate::host::machine::check::{self, Line, Verdict};
use crate::host::machine::setup::Wanted;
use crate::model::diagnostic::Severity;
use crate::model::lab::VmGroup;
use crate::model::site::Site;
use crate::scheduler::{self, Finding, ThisHost};

/// This machine as one of the site's hosts; `program` is what its jobs would run.
pub fn lines_of_host(groups: &[VmGroup], site: &Site, program: &Path) -> Vec<Line> {
    let mut lines = check::check(&Wanted::new(groups, site), &site.storage);
    let here = ThisHost { runs: &site.storage.runs, service_user: &site.service_user, program };
    if let Some(findings) = scheduler::open(&site.scheduler, program).check_here(&here) {
        lines.extend(lines_of("jobs here", "a starter can begin on this host", findings));
    }
    lines
}

/// This machine and the cluster.
pub fn lines(groups: &[VmGroup], site: &Site, program: &Path) -> Vec<Line> {
    [lines_of_host(groups, site, program), lines_of_cluster(site, program)].concat()
}

/// The cluster that jobs go to; nothing where jobs are this machine's own.
pub fn lines_of_cluster(site: &Site, program: &Path) -> Vec<Line> {
    const WHAT: &str = "cluster";
    match scheduler::open(&site.scheduler, program).check(&site.timing) {
        Ok(None) => Vec::new(),
        Ok(Some(findings)) => lines_of(WHAT, "Grid Engine is set up as labs need it", findings),
        Err(error) => {
            let mend = "see `scheduler:` in site.yaml; `qconf -as HOST` lets a host ask and submit";
            vec![check::failed(WHAT, chain(&error), mend)]
        }
    }
}

fn lines_of(what: &'static str, well: &str, findings: Vec<Finding>) -> Vec<Line> {
    if findings.is_empty() {
        return vec![check::ok(what, well)];
    }
    let line = |Finding { severity, message, mend }: Finding| {
        let verdict = if severity == Severity::Error { Verdict::Failed } else { Verdict::Warning };
        Line { what: what.into(), verdict, found: message, mend: Some(mend) }
    };
    findings.into_iter().map(line).collect()
}
