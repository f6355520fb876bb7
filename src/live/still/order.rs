//! In which order containers are stopped: whoever depends on others goes first and comes back last. The engine knows of no
//! such order; Docker Compose leaves its own in a label of each container.

use std::collections::{BTreeMap, BTreeSet};

/// Compose's label for the project of a container.
const PROJECT_LABEL: &str = "com.docker.compose.project";
/// Compose's label for the service of a container.
const SERVICE_LABEL: &str = "com.docker.compose.service";
/// Compose's label for what a service depends on: `service:condition:restart`, separated by commas.
const DEPENDS_LABEL: &str = "com.docker.compose.depends_on";

/// The longest such label that is read, and the most dependencies taken from it. Labels are anybody's.
const LABEL_BYTES_MAX: usize = 64 << 10;
const DEPENDENCIES_MAX: usize = 256;

/// A service of a project.
type Service<'a> = (&'a str, &'a str);

/// Sorts containers, given by their labels, into groups: the containers of a group may be stopped at once, after those of the
/// groups before it; they are started in reverse. Groups hold indices into `containers`, in ascending order. Containers that
/// say nothing are in the first group. Of a circle of dependencies, the first service by name goes first.
pub fn stop_groups(containers: &[&BTreeMap<String, String>]) -> Vec<Vec<usize>> {
    let services: Vec<Option<Service<'_>>> = containers.iter().map(|labels| service(labels)).collect();
    let ranks = ranks(&dependencies(containers, &services));
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        let rank = service.and_then(|service| ranks.get(&service)).copied().unwrap_or(0);
        groups.entry(rank).or_default().push(index);
    }
    groups.into_values().collect()
}

fn service(labels: &BTreeMap<String, String>) -> Option<Service<'_>> {
    Some((labels.get(PROJECT_LABEL)?, labels.get(SERVICE_LABEL)?))
}

/// For each service that is there, those that are there too and that it depends on.
fn dependencies<'a>(
    containers: &[&'a BTreeMap<String, String>],
    services: &[Option<Service<'a>>],
) -> BTreeMap<Service<'a>, BTreeSet<Service<'a>>> {
    let mut found: BTreeMap<Service<'a>, BTreeSet<Service<'a>>> = services.iter().flatten().map(|at| (*at, BTreeSet::new())).collect();
    let there: BTreeSet<Service<'a>> = found.keys().copied().collect();
    for (labels, service) in containers.iter().zip(services) {
        let Some(service) = service else { continue };
        let text = labels.get(DEPENDS_LABEL).map_or("", String::as_str);
        let on = names(text).map(|name| (service.0, name)).filter(|on| on != service && there.contains(on));
        if let Some(all) = found.get_mut(service) {
            all.extend(on.take(DEPENDENCIES_MAX));
        }
    }
    found
}

/// The services that a label names. Whatever else it says is of no concern here, so that labels of other versions work too.
fn names(label: &str) -> impl Iterator<Item = &str> {
    let label = if label.len() > LABEL_BYTES_MAX { "" } else { label };
    label.split(',').filter_map(|part| part.split(':').next()).map(str::trim).filter(|name| !name.is_empty())
}

/// How many services stand one behind the other before each, those that depend on it.
fn ranks<'a>(dependencies: &BTreeMap<Service<'a>, BTreeSet<Service<'a>>>) -> BTreeMap<Service<'a>, usize> {
    // Of the services without a rank, which others without one depend on them.
    let mut left: BTreeMap<Service<'a>, BTreeSet<Service<'a>>> = dependencies.keys().map(|service| (*service, BTreeSet::new())).collect();
    for (service, on) in dependencies.iter().flat_map(|(service, all)| all.iter().map(move |on| (service, on))) {
        left.entry(*on).or_default().insert(*service);
    }
    let mut ranks: BTreeMap<Service<'a>, usize> = BTreeMap::new();
    let mut free: BTreeSet<Service<'a>> =
        left.iter().filter(|(_, dependents)| dependents.is_empty()).map(|(service, _)| *service).collect();
    while let Some(service) = free.pop_first().or_else(|| first_of_a_circle(&left)) {
        left.remove(&service);
        let next = *ranks.entry(service).or_default() + 1;
        for on in dependencies.get(&service).into_iter().flatten() {
            let Some(dependents) = left.get_mut(on) else { continue };
            dependents.remove(&service);
            if dependents.is_empty() {
                free.insert(*on);
            }
            let rank = ranks.entry(*on).or_default();
            *rank = (*rank).max(next);
        }
    }
    ranks
}

/// The first service, by name, of a circle, where each of `left` has a dependent: whoever goes from dependent to dependent is
/// in one sooner or later.
fn first_of_a_circle<'a>(left: &BTreeMap<Service<'a>, BTreeSet<Service<'a>>>) -> Option<Service<'a>> {
    let step = |at: &Service<'a>| left.get(at).and_then(BTreeSet::first).copied();
    let mut at = *left.keys().next()?;
    for _ in 0..left.len() {
        at = step(&at)?;
    }
    let (entered, mut first) = (at, at);
    loop {
        at = step(&at)?;
        if at == entered {
            return Some(first);
        }
        first = first.min(at);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn container(project: &str, service: &str, depends_on: &str) -> BTreeMap<String, String> {
        let pairs = [(PROJECT_LABEL, project), (SERVICE_LABEL, service), (DEPENDS_LABEL, depends_on)];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn groups(containers: &[BTreeMap<String, String>]) -> Vec<Vec<usize>> {
        stop_groups(&containers.iter().collect::<Vec<_>>())
    }

    #[test]
    fn dependents_stop_before_what_they_depend_on() {
        let stack = [
            container("p", "db", ""),
            container("p", "web", "app:service_started:false"),
            container("p", "app", "db:service_healthy:true,cache:service_started:false"),
            container("p", "cache", ""),
            container("p", "app", "db:service_healthy:true,cache:service_started:false"),
            container("p", "report", "db:service_healthy:true"),
        ];
        assert_eq!(groups(&stack), [vec![1, 5], vec![2, 4], vec![0, 3]], "both of a scaled service, and the longest way counts");
    }

    #[test]
    fn projects_do_not_mix_and_absent_or_unlabelled_ones_do_not_matter() {
        let stack = [
            container("p", "app", "db:service_started:false,gone:service_started:false"),
            container("q", "db", ""),
            BTreeMap::new(),
            container("p", "db", "db:service_started:false"),
        ];
        assert_eq!(groups(&stack), [vec![0, 1, 2], vec![3]]);
        assert!(groups(&[]).is_empty());
    }

    #[test]
    fn a_circle_is_cut_and_those_around_it_keep_their_order() {
        let stack = [
            container("p", "b", "c"),
            container("p", "c", "a"),
            container("p", "a", "b,store"),
            container("p", "store", ""),
            container("p", "web", "a"),
            container("p", "Base", "store"),
        ];
        assert_eq!(groups(&stack), [vec![4, 5], vec![2], vec![0, 3], vec![1]]);
        let behind = [container("p", "a", ""), container("p", "x", "y,a"), container("p", "y", "x")];
        assert_eq!(groups(&behind), [vec![1], vec![0, 2]], "one that is behind a circle is not taken for the circle");
    }

    #[test]
    fn odd_labels_are_read_as_far_as_they_make_sense() {
        assert_eq!(names("db:service_healthy:true, cache ,,:x,a:b:c:d").collect::<Vec<_>>(), ["db", "cache", "a"]);
        assert_eq!(names(&"a,".repeat(LABEL_BYTES_MAX)).count(), 0);
    }

    #[test]
    fn every_container_is_in_exactly_one_group_whatever_the_graph() {
        // All graphs of three services.
        for graph in 0u32..1 << 9 {
            let stack: Vec<_> = (0..3)
                .map(|from| {
                    let on: Vec<_> = (0..3).filter(|to| graph >> (from * 3 + to) & 1 == 1).map(|to| to.to_string()).collect();
                    container("p", &from.to_string(), &on.join(","))
                })
                .collect();
            let groups = groups(&stack);
            let mut all: Vec<_> = groups.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2], "{graph:09b}: {groups:?}");
        }
    }
}
