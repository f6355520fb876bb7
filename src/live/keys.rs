//! The keys of settings: their names in labels (after `icecore.`) and in the configuration file, and where each may stand.

use super::nearest::nearest;

/// What every label of ours begins with.
pub const PREFIX: &str = "icecore.";

/// A point around a capture at which a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Moment {
    /// Before the freeze.
    Pre,
    /// After the thaw.
    Post,
    /// After a restore.
    PostRestore,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pre, Self::Post, Self::PostRestore];

    /// As it stands in a key.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Post => "post",
            Self::PostRestore => "post-restore",
        }
    }
}

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Whether it is captured.
    Enable,
    /// Which volumes of a container its labels are about.
    Volumes,
    /// Which volumes of a container are left out.
    VolumesExclude,
    /// Which bind mounts of a container are captured, too.
    Binds,
    /// When.
    Schedule,
    /// How still it is held.
    Consistency,
    /// How long a freeze may take.
    FreezeBudget,
    /// How long a container gets to stop.
    StopTimeout,
    /// With what it is captured.
    Group,
    /// Which dumps are taken.
    Dump,
    /// A command around the capture.
    Hook(Moment),
    /// As whom it runs.
    HookUser(Moment),
    /// How long it may run.
    HookTimeout(Moment),
    /// How many snapshots are kept.
    Keep,
    /// Which files are left out.
    Exclude,
    /// What is waited for after a start.
    Health,
    /// How important it is.
    Priority,
    /// Words about it.
    Description,
}

impl Key {
    /// All keys, as the reference lists them.
    pub const ALL: [Self; 24] = [
        Self::Enable,
        Self::Volumes,
        Self::VolumesExclude,
        Self::Binds,
        Self::Priority,
        Self::Description,
        Self::Schedule,
        Self::Keep,
        Self::Exclude,
        Self::Consistency,
        Self::FreezeBudget,
        Self::StopTimeout,
        Self::Health,
        Self::Group,
        Self::Dump,
        Self::Hook(Moment::Pre),
        Self::HookUser(Moment::Pre),
        Self::HookTimeout(Moment::Pre),
        Self::Hook(Moment::Post),
        Self::HookUser(Moment::Post),
        Self::HookTimeout(Moment::Post),
        Self::Hook(Moment::PostRestore),
        Self::HookUser(Moment::PostRestore),
        Self::HookTimeout(Moment::PostRestore),
    ];

    /// Its name in labels, after the prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enable => "enable",
            Self::Volumes => "volumes",
            Self::VolumesExclude => "volumes.exclude",
            Self::Binds => "binds",
            Self::Schedule => "schedule",
            Self::Consistency => "consistency",
            Self::FreezeBudget => "freeze-budget",
            Self::StopTimeout => "stop-timeout",
            Self::Group => "group",
            Self::Dump => "dump",
            Self::Hook(Moment::Pre) => "hook.pre",
            Self::HookUser(Moment::Pre) => "hook.pre.user",
            Self::HookTimeout(Moment::Pre) => "hook.pre.timeout",
            Self::Hook(Moment::Post) => "hook.post",
            Self::HookUser(Moment::Post) => "hook.post.user",
            Self::HookTimeout(Moment::Post) => "hook.post.timeout",
            Self::Hook(Moment::PostRestore) => "hook.post-restore",
            Self::HookUser(Moment::PostRestore) => "hook.post-restore.user",
            Self::HookTimeout(Moment::PostRestore) => "hook.post-restore.timeout",
            Self::Keep => "keep",
            Self::Exclude => "exclude",
            Self::Health => "health",
            Self::Priority => "priority",
            Self::Description => "description",
        }
    }

    /// Its name in the configuration file.
    pub fn config_name(self) -> &'static str {
        match self {
            Self::VolumesExclude => "volumes_exclude",
            Self::FreezeBudget => "freeze_budget",
            Self::StopTimeout => "stop_timeout",
            Self::Hook(Moment::Pre) => "hook_pre",
            Self::HookUser(Moment::Pre) => "hook_pre_user",
            Self::HookTimeout(Moment::Pre) => "hook_pre_timeout",
            Self::Hook(Moment::Post) => "hook_post",
            Self::HookUser(Moment::Post) => "hook_post_user",
            Self::HookTimeout(Moment::Post) => "hook_post_timeout",
            Self::Hook(Moment::PostRestore) => "hook_post_restore",
            Self::HookUser(Moment::PostRestore) => "hook_post_restore_user",
            Self::HookTimeout(Moment::PostRestore) => "hook_post_restore_timeout",
            other => other.name(),
        }
    }

    /// The key of a name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// The name that was probably meant, after the prefix.
    pub fn meant(name: &str) -> Option<&'static str> {
        nearest(&name.replace('_', "-"), Self::ALL.into_iter().map(Self::name))
    }

    /// Whether it may stand on a volume, and in the sections of the configuration file that are about volumes. All may stand
    /// on a container.
    pub fn fits_volume(self) -> bool {
        !matches!(
            self,
            Self::Volumes | Self::VolumesExclude | Self::Binds | Self::Dump | Self::Hook(_) | Self::HookUser(_) | Self::HookTimeout(_)
        )
    }

    /// Whether it is about the container itself, and so may stand in a section of the configuration file about a container.
    pub fn fits_container_section(self) -> bool {
        !self.fits_volume() || matches!(self, Self::StopTimeout | Self::Health)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_of_one_key_each() {
        assert_eq!(Key::ALL.into_iter().collect::<BTreeSet<_>>().len(), Key::ALL.len());
        for key in Key::ALL {
            assert_eq!(Key::find(key.name()), Some(key));
            assert_eq!(key.config_name(), key.name().replace(['-', '.'], "_"));
        }
        for moment in Moment::ALL {
            assert_eq!(Key::Hook(moment).name(), format!("hook.{}", moment.name()));
            assert_eq!(Key::HookUser(moment).name(), format!("hook.{}.user", moment.name()));
        }
    }

    #[test]
    fn near_misses_are_recognised() {
        for (typed, meant) in [
            ("enabled", "enable"),
            ("freeze_budget", "freeze-budget"),
            ("hook.per", "hook.pre"),
            ("hook-pre", "hook.pre"),
            ("consistancy", "consistency"),
            ("volume", "volumes"),
            ("hook.post_restore.timeout", "hook.post-restore.timeout"),
        ] {
            assert_eq!(Key::meant(typed), Some(meant), "{typed}");
        }
        assert_eq!(Key::meant("colour"), None);
    }
}
