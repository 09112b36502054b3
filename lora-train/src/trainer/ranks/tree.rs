//! Sum in a fixed tree.

/// Sum of consecutive items, added in a binary tree over their positions.
///
/// A block of 2ᵏ items that starts at a multiple of 2ᵏ is the sum of its two halves; what remains at the end is added from right to
/// left. The order of additions thus depends on the number of items alone, and not on who adds them: rounding is the same however
/// the items are divided. At most log₂ n + 1 partial sums exist at a time.
#[derive(Clone, Debug)]
pub(in crate::trainer) struct Tree<T> {
    nodes: Vec<Node<T>>,
}

/// Sum of a block of items.
#[derive(Clone, Debug)]
struct Node<T> {
    first: usize,
    length: usize,
    sum: T,
}

impl<T> Tree<T> {
    /// Creates an empty sum.
    pub fn new() -> Self {
        Self { nodes: Vec::new() }
    }

    /// Adds the item at a position, the one after the position before.
    pub fn push(&mut self, position: usize, item: T, add: impl Fn(T, T) -> T) {
        self.push_node(
            Node {
                first: position,
                length: 1,
                sum: item,
            },
            add,
        );
    }

    fn push_node(&mut self, mut node: Node<T>, add: impl Fn(T, T) -> T) {
        while let Some(last) = self.nodes.last() {
            let is_left_half = last.length == node.length && last.first % (2 * node.length) == 0;
            if !is_left_half {
                break;
            }
            if let Some(left) = self.nodes.pop() {
                node = Node {
                    first: left.first,
                    length: 2 * node.length,
                    sum: add(left.sum, node.sum),
                };
            }
        }
        self.nodes.push(node);
    }

    /// Returns the sum of all items; `None` without any.
    pub fn total(mut self, add: impl Fn(T, T) -> T) -> Option<T> {
        let mut total = self.nodes.pop()?.sum;
        while let Some(left) = self.nodes.pop() {
            total = add(left.sum, total);
        }
        Some(total)
    }

    /// Returns the partial sums, in the order of their blocks.
    pub fn into_parts(self) -> Vec<T> {
        self.nodes.into_iter().map(|node| node.sum).collect()
    }

    /// Adds the items of another sum, which follow those of this one.
    pub fn append(&mut self, other: Self, add: impl Fn(T, T) -> T) {
        for node in other.nodes {
            self.push_node(node, &add);
        }
    }

    /// Applies a function to each partial sum.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Tree<U> {
        let nodes = self.nodes.into_iter().map(|node| Node {
            first: node.first,
            length: node.length,
            sum: f(node.sum),
        });
        Tree {
            nodes: nodes.collect(),
        }
    }
}

impl Tree<()> {
    /// Returns the partial sums of some positions, without values.
    pub fn of_positions(positions: std::ops::Range<usize>) -> Self {
        let mut tree = Self::new();
        for position in positions {
            tree.push(position, (), |(), ()| ());
        }
        tree
    }

    /// Returns the number of partial sums.
    pub fn parts(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::block;
    use super::*;

    fn join(a: String, b: String) -> String {
        format!("({a}{b})")
    }

    fn tree(positions: std::ops::Range<usize>) -> Tree<String> {
        let mut tree = Tree::new();
        for position in positions {
            tree.push(position, position.to_string(), join);
        }
        tree
    }

    #[test]
    fn items_are_added_in_pairs_and_the_rest_from_right_to_left() {
        let totals = [1, 2, 3, 4, 6, 7].map(|n| tree(0..n).total(join).unwrap());
        let expected = [
            "0",
            "(01)",
            "((01)2)",
            "((01)(23))",
            "(((01)(23))(45))",
            "(((01)(23))((45)6))",
        ];
        assert_eq!(totals, expected);
        assert!(tree(0..0).total(join).is_none());
    }

    #[test]
    fn the_order_of_additions_does_not_depend_on_the_division_into_blocks() {
        for batches in 1..40 {
            let whole = tree(0..batches).total(join);
            for ranks in 1..9 {
                let mut sum = Tree::new();
                for rank in 0..ranks {
                    let positions = block(batches, rank, ranks);
                    let own = tree(positions.clone());
                    let shape = Tree::of_positions(positions);
                    assert_eq!(shape.parts(), own.clone().into_parts().len());
                    // As the parts arrive: values of another rank in a tree of its shape.
                    let mut values = own.into_parts().into_iter();
                    sum.append(shape.map(|()| values.next().unwrap()), join);
                }
                assert_eq!(sum.total(join), whole, "{batches} batches, {ranks} ranks");
            }
        }
    }

    #[test]
    fn blocks_of_a_power_of_two_are_one_part() {
        for (batches, ranks) in [(4, 2), (4, 4), (8, 2), (16, 4), (6, 3)] {
            for rank in 0..ranks {
                let positions = block(batches, rank, ranks);
                assert_eq!(Tree::of_positions(positions).parts(), 1);
            }
        }
    }
}
