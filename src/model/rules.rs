//! Every rule a manifest can break, with its stable code. A code is never given a second meaning; a rule that goes
//! leaves a hole. The page that `--explain` prints is `rules/<code>.md`, whose first line is the rule's summary.

use std::fmt;

use crate::model::diagnostic::Severity;

macro_rules! rules {
    ($($name:ident $code:literal $severity:ident,)*) => {
        /// One thing that can be wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $($name,)* }

        impl Rule {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code, such as `LW002`.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// The page for `--explain`, Markdown: summary, a wrong sample, what to do.
            pub fn page(self) -> &'static str {
                match self { $(Self::$name => include_str!(concat!("rules/", $code, ".md")),)* }
            }
        }
    };
}

rules! {
    // The text of a file, and its shape.
    Syntax "LW001" Error,
    UnknownKey "LW002" Error,
    DuplicateKey "LW003" Error,
    MissingKey "LW004" Error,
    WrongType "LW005" Error,
    BadValue "LW006" Error,
    UnsupportedYaml "LW007" Error,
    TooBig "LW008" Error,
    NotText "LW009" Error,
    InvalidName "LW010" Error,
    NoLab "LW011" Error,
    DuplicateName "LW012" Error,
    PredefinedName "LW013" Error,
    ConflictingKeys "LW014" Error,
    NoDisks "LW015" Error,
    NoOwner "LW016" Error,
    Secret "LW017" Error,
    Unread "LW018" Warning,
    SeveralLabs "LW019" Error,
    // Names that must mean something.
    UnknownUserGroup "LW020" Error,
    UnknownVmGroup "LW021" Error,
    UnknownTemplate "LW022" Error,
    UnknownVm "LW023" Error,
    UnknownUser "LW024" Warning,
    NamePattern "LW025" Error,
    DuplicateVm "LW026" Error,
    FamilyAndVm "LW027" Error,
    DerivedTemplate "LW028" Error,
    NamesAlike "LW029" Warning,
    // Addresses and networks.
    RangeOrder "LW030" Error,
    RangesOverlap "LW031" Error,
    RangeTooSmall "LW032" Error,
    ReservedAddress "LW033" Error,
    OutsideSubnet "LW034" Error,
    MacCollision "LW035" Error,
    InterfaceName "LW036" Error,
    VlanConflict "LW037" Error,
    SharedBridge "LW038" Error,
    UselessExclude "LW039" Warning,
    // People.
    RosterUnreadable "LW040" Error,
    RosterColumns "LW041" Error,
    RosterLine "LW042" Error,
    RosterDuplicate "LW043" Error,
    UidConflict "LW044" Error,
    UidUnknown "LW045" Error,
    EmptyGroup "LW046" Warning,
    MemberTwice "LW047" Warning,
    ExtraTimeUnit "LW048" Warning,
    // Disks and images.
    ImageMissing "LW050" Error,
    ImageFormat "LW051" Error,
    ImageDerived "LW052" Error,
    ImageChecksum "LW053" Error,
    ImageUnseen "LW054" Warning,
    // What guests learn of themselves.
    SeedFile "LW055" Error,
    SshKey "LW056" Error,
    // What fits.
    RunningLimit "LW060" Error,
    StorageLimit "LW061" Error,
    Hardware "LW062" Error,
    // Who may do what.
    UselessPermission "LW065" Warning,
    IsolationContradiction "LW066" Error,
    DuplicatePermission "LW067" Warning,
    // Exams and classes.
    SessionOrder "LW070" Error,
    SessionsOverlap "LW071" Error,
    ClockChange "LW072" Error,
    Egress "LW073" Error,
    UselessExtraTime "LW074" Warning,
    EmptySession "LW075" Error,
    UselessEgress "LW076" Warning,
    StoppedInSession "LW077" Warning,
    ExamShares "LW078" Error,
    ExamName "LW079" Error,
    OldKey "LW084" Warning,
    Accommodations "LW086" Error,
    CollectsNothing "LW088" Warning,
    // Renames.
    MovedCircle "LW080" Error,
    MovedUnknown "LW081" Error,
    MovedTwice "LW082" Error,
    MovedKinds "LW083" Error,
    // What a lab leaves out.
    UselessIgnore "LW085" Warning,
    // Machines on the guests' wire.
    Wire "LW087" Error,
    // The site, and several labs in one site.
    SiteSetting "LW090" Error,
    DhcpServersUnsaid "LW091" Warning,
    LabsShareName "LW095" Error,
    LabsShareAddresses "LW096" Error,
    LabsShareTime "LW097" Warning,
    BeyondShare "LW098" Error,
    // What is recorded, and nothing acts upon yet.
    LimitsUnbuilt "LW103" Warning,
}

impl Rule {
    /// The constant summary of the kind, such as `unknown key`.
    pub fn summary(self) -> &'static str {
        self.page().lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
    }

    /// The rule that has a code; upper or lower case.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.code().eq_ignore_ascii_case(code))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}
