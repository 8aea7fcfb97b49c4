//! Pictures that sinks look at, on their way back to whoever fills them.

use crate::frame::Picture;
use std::sync::Arc;

/// Pictures that somebody may still hold. A sink lets go of one when it has taken up the next,
/// a moment after that was published: so one is asked for not once, but until it is free. Fresh
/// memory for every picture would cost some 2 ms at 1280×720.
#[derive(Debug, Default)]
pub struct Lent(Vec<Arc<Picture>>);

impl Lent {
    /// Slow sinks each hold one; what is held beyond this is theirs to free.
    const MOST: usize = 4;

    /// Takes note of `picture`, to be asked for by [`Lent::take_free`].
    pub fn lend(&mut self, picture: Arc<Picture>) {
        self.0.push(picture);
    }

    /// The oldest picture that nobody else holds. `None`: all are held, and those too many are
    /// given up.
    pub fn take_free(&mut self) -> Option<Picture> {
        if let Some(at) = self.0.iter().position(|picture| Arc::strong_count(picture) == 1) {
            return Arc::into_inner(self.0.remove(at));
        }
        let too_many = self.0.len().saturating_sub(Self::MOST);
        self.0.drain(..too_many);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_back_later_and_no_more_than_some_is_waited_for() {
        let mut lent = Lent::default();
        let pictures: Vec<_> = (0..6).map(|n| Arc::new(Picture::new(8 + n, 8))).collect();
        for (n, picture) in pictures.iter().enumerate() {
            lent.lend(picture.clone());
            assert!(lent.take_free().is_none());
            assert_eq!(lent.0.len(), (n + 1).min(Lent::MOST));
        }
        drop(pictures);
        lent.lend(Arc::new(Picture::new(8, 8)));
        let widths: Vec<_> = std::iter::from_fn(|| lent.take_free()).map(|p| p.width).collect();
        assert_eq!(widths, [10, 11, 12, 13, 8]);
        assert!(lent.0.is_empty());
    }
}
