//! Frontiers over a total order: how far a collection has been sealed, and how far it has been compacted.
//!
//! A frontier stands for all times that are still open: those at or after its element. Over a total order an
//! antichain has at most one element, so a frontier is one time or none. The frontier without an element leaves no
//! time open. It is where every frontier ends, hence the greatest of all, although [`Option`] sorts `None` first;
//! that is why the order is written out here.

use std::cmp::Ordering;
use std::fmt;

/// A frontier that owns its element.
///
/// ```
/// use larder_traits::frontier::Antichain;
///
/// let frontier = Antichain::from_elem(5);
/// assert!(frontier.less_equal(&5) && !frontier.less_equal(&4));
/// assert!(frontier < Antichain::from_elem(6));
/// assert!(Antichain::from_elem(i64::MAX) < Antichain::new());
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Antichain<T>(Option<T>);

impl<T> Antichain<T> {
    /// The empty frontier: no time is open. It is greater than every other one.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// The frontier at `element`: this time and all later ones are open.
    #[must_use]
    pub const fn from_elem(element: T) -> Self {
        Self(Some(element))
    }

    /// The elements: one, or none for the empty frontier.
    #[must_use]
    pub fn elements(&self) -> &[T] {
        self.0.as_slice()
    }

    /// The element, or `None` for the empty frontier.
    #[must_use]
    pub const fn as_option(&self) -> Option<&T> {
        self.0.as_ref()
    }

    /// The element by value, or `None` for the empty frontier.
    #[must_use]
    pub fn into_option(self) -> Option<T> {
        self.0
    }

    /// Whether this is the empty frontier.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The same frontier, borrowed.
    #[must_use]
    pub const fn borrow(&self) -> AntichainRef<'_, T> {
        AntichainRef(self.0.as_ref())
    }
}

impl<T: Ord> Antichain<T> {
    /// Whether `time` is still open: at or after the element. Never for the empty frontier.
    #[must_use]
    pub fn less_equal(&self, time: &T) -> bool {
        self.borrow().less_equal(time)
    }
}

/// The empty frontier.
impl<T> Default for Antichain<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// `None` is the empty frontier.
impl<T> From<Option<T>> for Antichain<T> {
    fn from(element: Option<T>) -> Self {
        Self(element)
    }
}

impl<T: Ord> Ord for Antichain<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.borrow().cmp(&other.borrow())
    }
}

impl<T: Ord> PartialOrd for Antichain<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: fmt::Debug> fmt::Debug for Antichain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrow().fmt(f)
    }
}

/// `{5}`, or `{}` for the empty frontier.
impl<T: fmt::Display> fmt::Display for Antichain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrow().fmt(f)
    }
}

/// A frontier that borrows its element. Always `Copy`, whatever the element is.
#[derive(PartialEq, Eq, Hash)]
pub struct AntichainRef<'a, T>(Option<&'a T>);

impl<'a, T> AntichainRef<'a, T> {
    /// The empty frontier: no time is open. It is greater than every other one.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// The frontier at `element`: this time and all later ones are open.
    #[must_use]
    pub const fn from_elem(element: &'a T) -> Self {
        Self(Some(element))
    }

    /// The elements: one, or none for the empty frontier.
    #[must_use]
    pub fn elements(self) -> &'a [T] {
        self.0.map_or(&[], std::slice::from_ref)
    }

    /// The element, or `None` for the empty frontier.
    #[must_use]
    pub const fn as_option(self) -> Option<&'a T> {
        self.0
    }

    /// Whether this is the empty frontier.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_none()
    }
}

impl<T: Clone> AntichainRef<'_, T> {
    /// The same frontier, owned.
    #[must_use]
    pub fn to_owned(self) -> Antichain<T> {
        Antichain(self.0.cloned())
    }
}

impl<T: Ord> AntichainRef<'_, T> {
    /// Whether `time` is still open: at or after the element. Never for the empty frontier.
    #[must_use]
    pub fn less_equal(self, time: &T) -> bool {
        self.0.is_some_and(|element| element <= time)
    }
}

// By hand, because a derive would ask the same of `T`.
impl<T> Clone for AntichainRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for AntichainRef<'_, T> {}

/// The empty frontier.
impl<T> Default for AntichainRef<'_, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, T> From<&'a Antichain<T>> for AntichainRef<'a, T> {
    fn from(frontier: &'a Antichain<T>) -> Self {
        frontier.borrow()
    }
}

impl<T: Ord> Ord for AntichainRef<'_, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.0, other.0) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }
}

impl<T: Ord> PartialOrd for AntichainRef<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: fmt::Debug> fmt::Debug for AntichainRef<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0).finish()
    }
}

/// `{5}`, or `{}` for the empty frontier.
impl<T: fmt::Display> fmt::Display for AntichainRef<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(element) => write!(f, "{{{element}}}"),
            None => f.write_str("{}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_frontier_is_the_greatest() {
        let mut all = [
            Antichain::new(),
            Antichain::from_elem(i64::MAX),
            Antichain::from_elem(i64::MIN),
            Antichain::from_elem(0),
        ];
        all.sort();
        let sorted: Vec<_> = all.iter().map(Antichain::as_option).collect();
        assert_eq!(sorted, [Some(&i64::MIN), Some(&0), Some(&i64::MAX), None]);
        assert!(all[2].borrow() < all[3].borrow());
        assert_eq!(all[3].cmp(&Antichain::default()), Ordering::Equal);
    }

    #[test]
    fn less_equal_tells_which_times_are_open() {
        let at_five = Antichain::from_elem(5);
        assert!(!at_five.less_equal(&4));
        assert!(at_five.less_equal(&5));
        assert!(at_five.less_equal(&6));
        assert!(!Antichain::new().less_equal(&i64::MAX));
    }

    #[test]
    fn owned_and_borrowed_are_the_same_frontier() {
        for frontier in [Antichain::from_elem(7), Antichain::new()] {
            let borrowed = AntichainRef::from(&frontier);
            assert_eq!(borrowed.to_owned(), frontier);
            assert_eq!(borrowed.elements(), frontier.elements());
            assert_eq!(borrowed.is_empty(), frontier.is_empty());
            assert_eq!(Antichain::from(frontier.clone().into_option()), frontier);
        }
        assert_eq!(AntichainRef::from_elem(&7).as_option(), Some(&7));
        assert_eq!(AntichainRef::<i64>::default(), AntichainRef::new());
    }

    #[test]
    fn a_borrowed_frontier_is_copy_though_its_element_is_not() {
        fn is_copy<T: Copy>(_: T) {}
        let frontier = Antichain::from_elem(String::from("t"));
        is_copy(frontier.borrow());
    }

    #[test]
    fn frontiers_print_as_sets() {
        assert_eq!(Antichain::from_elem(5).to_string(), "{5}");
        assert_eq!(Antichain::<i64>::new().to_string(), "{}");
        assert_eq!(format!("{:?}", Antichain::from_elem(5)), "{5}");
        assert_eq!(format!("{:?}", Antichain::<i64>::new()), "{}");
    }
}
