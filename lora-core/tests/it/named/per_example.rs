//! Adapters chosen for each example of a batch.

use super::*;

const MIXED: [Option<&str>; 10] = [
    Some("headed"),
    None,
    Some("dora"),
    Some("slices"),
    Some("headed_too"),
    Some("biased"),
    Some("pissa"),
    Some("plain"),
    Some("headed"),
    Some("lora_only"),
];

#[test]
fn each_example_of_a_batch_has_its_own_adapter() {
    let device = Device::flex();
    let (_, adapters, _) = set(&device);
    let x = ids(MIXED.len(), 4, &device);
    let expected = one_by_one(&adapters, &MIXED, |net, at| {
        host(net.forward(x.clone().narrow(0, at, 1)))
    });
    let mixed = || {
        adapters
            .per_example(&MIXED, |net| host(net.forward(x.clone())))
            .unwrap()
    };
    assert_near(&mixed(), &expected, "mixed");
    // Whatever is active, and again with what was kept from before.
    adapters.activate("plain").unwrap();
    let batch = adapters.assign(&MIXED).unwrap();
    for _ in 0..2 {
        assert_near(
            &batch.run(|| host(adapters.model().forward(x.clone()))),
            &expected,
            "assigned",
        );
    }
    assert_eq!(adapters.active(), Some("plain"));
    // Other rows of the same batch.
    let chosen = [4usize, 4, 0, 1];
    let picked = batch.select(&chosen);
    assert_eq!(picked.len(), 4);
    let rows: Vec<Tensor<2, Int>> = chosen
        .iter()
        .map(|&at| x.clone().narrow(0, at, 1))
        .collect();
    let found = picked.run(|| host(adapters.model().forward(Tensor::cat(rows, 0))));
    let width = expected.len() / MIXED.len();
    let of = |at: &usize| expected[at * width..(at + 1) * width].to_vec();
    assert_near(
        &found,
        &chosen.iter().flat_map(of).collect::<Vec<_>>(),
        "picked",
    );
}

#[test]
fn a_batch_of_one_adapter_takes_its_plain_path() {
    let device = Device::flex();
    let (_, adapters, alone) = set(&device);
    let x = ids(2, 3, &device);
    for (name, net) in &alone {
        let found = adapters
            .per_example(&[Some(*name); 2], |net| host(net.forward(x.clone())))
            .unwrap();
        assert_near(&found, &host(net.forward(x.clone())), name);
    }
    let bare = adapters
        .per_example(&[None, None], |net| host(net.forward(x.clone())))
        .unwrap();
    assert_eq!(bare, host(adapters.base().forward(x)));
}

#[test]
fn layers_take_any_shape_whose_first_axis_is_the_batch_or_shared() {
    let device = Device::flex();
    let (_, adapters, _) = set(&device);
    let names = [
        Some("slices"),
        None,
        Some("dora"),
        Some("biased"),
        Some("headed"),
        Some("headed_too"),
    ];
    let n = names.len();
    let head = |net: &Net, x: Tensor<2>| host(net.head.forward(x));
    let random = |rows: usize| Tensor::<2>::random([rows, 10], Distribution::Default, &device);
    // Several rows an example, as `[batch · rows, d]`, `[batch, rows, d]` and `[batch, a, b, d]`.
    let x = random(n * 6);
    let expected = one_by_one(&adapters, &names, |net, at| {
        head(net, x.clone().narrow(0, at * 6, 6))
    });
    let flat = adapters
        .per_example(&names, |net| head(net, x.clone()))
        .unwrap();
    assert_near(&flat, &expected, "two axes");
    let three = adapters.per_example(&names, |net| {
        net.head.forward(x.clone().reshape([n, 6, 10]))
    });
    let three = three.unwrap();
    assert_eq!(three.dims(), [n, 6, 5]);
    assert_near(&host(three), &expected, "three axes");
    let four = adapters.per_example(&names, |net| {
        net.head.forward(x.clone().reshape([n, 2, 3, 10]))
    });
    let four = four.unwrap();
    assert_eq!(four.dims(), [n, 2, 3, 5]);
    assert_near(&host(four), &expected, "four axes");
    // What all examples share.
    let shared = random(5);
    let expected = one_by_one(&adapters, &names, |net, _| head(net, shared.clone()));
    let found = adapters.per_example(&names, |net| {
        net.head.forward(shared.clone().unsqueeze::<3>())
    });
    let found = found.unwrap();
    assert_eq!(found.dims(), [n, 5, 5]);
    assert_near(&host(found), &expected, "shared");
    let words = ids(1, 4, &device);
    let expected = one_by_one(&adapters, &names, |net, _| {
        host(net.words.forward(words.clone()))
    });
    let found = adapters
        .per_example(&names, |net| net.words.forward(words.clone()))
        .unwrap();
    assert_eq!(found.dims(), [n, 4, 8]);
    assert_near(&host(found), &expected, "shared words");
}

#[test]
fn rows_that_are_picked_out_of_a_batch_keep_their_adapters() {
    let device = Device::flex();
    let (_, adapters, _) = set(&device);
    let names = [Some("slices"), Some("headed"), None];
    let x = Tensor::<3>::random([3, 4, 10], Distribution::Default, &device);
    let picked = [(0usize, 3usize), (0, 1), (1, 2), (2, 0), (2, 2)];
    let row = |at: usize| {
        let (example, place) = picked[at];
        x.clone()
            .narrow(0, example, 1)
            .narrow(1, place, 1)
            .reshape([1, 10])
    };
    let examples: Vec<usize> = picked.iter().map(|(example, _)| *example).collect();
    let each: Vec<Option<&str>> = examples.iter().map(|&example| names[example]).collect();
    let expected = one_by_one(&adapters, &each, |net, at| host(net.head.forward(row(at))));
    let rows = Tensor::cat((0..picked.len()).map(row).collect(), 0);
    let found = adapters.per_example(&names, |net| {
        in_rows(&examples, || host(net.head.forward(rows.clone())))
    });
    assert_near(&found.unwrap(), &expected, "picked rows");
    // Without a mixed batch it is nothing.
    let bare = in_rows(&examples, || {
        host(adapters.model().head.forward(rows.clone()))
    });
    assert_eq!(bare, host(adapters.base().head.forward(rows)));
}

#[test]
fn rows_that_belong_to_no_example_are_refused() {
    let device = Device::flex();
    let (_, adapters, _) = set(&device);
    let names = [Some("slices"), None];
    let run = |x: Tensor<2>| {
        let work = || adapters.per_example(&names, |net| net.head.forward(x.clone()));
        catch_unwind(AssertUnwindSafe(work)).is_ok()
    };
    assert!(run(Tensor::zeros([4, 10], &device)));
    assert!(!run(Tensor::zeros([5, 10], &device)));
    let three = || {
        adapters.per_example(&names, |net| {
            net.head.forward(Tensor::<3>::zeros([4, 1, 10], &device))
        })
    };
    assert!(catch_unwind(AssertUnwindSafe(three)).is_err());
    // A panic leaves nothing behind.
    let x = ids(4, 1, &device);
    assert_eq!(
        host(adapters.model().forward(x.clone())),
        host(adapters.base().forward(x))
    );
}

#[test]
fn what_layers_of_burn_read_cannot_differ_within_a_batch() {
    let device = Device::flex();
    let (base, mut adapters, _) = set(&device);
    let whole = [
        (
            "layer",
            LoraConfig::new(2).with_targets(names(["plain"])),
            "plain.weight",
        ),
        (
            "norms",
            LoraConfig::new(2)
                .with_targets(names(["fused"]))
                .with_modules_to_save(["norm"]),
            "norm.gamma",
        ),
        (
            "biases",
            LoraConfig::new(2)
                .with_targets(names(["fused"]))
                .with_bias(BiasTraining::All),
            "norm.beta",
        ),
        (
            "words",
            LoraConfig::new(2)
                .with_targets(names(["fused"]))
                .with_modules_to_save(["words"]),
            "words.weight",
        ),
    ];
    let x = ids(2, 3, &device);
    for (name, config, first) in &whole {
        let adapted = trained(&base, config, 5.0);
        adapters
            .add_attached(name, &adapted, &PeftOptions::default())
            .unwrap();
        match adapters.assign(&[Some(*name), None]) {
            Err(LoraError::NotPerExample {
                adapter, parameter, ..
            }) => {
                assert_eq!(adapter, *name);
                assert!(
                    parameter == *first || parameter == "plain.bias",
                    "{parameter}"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
        // On all examples it acts as when it is active.
        let expected = host(adapted.module().forward(x.clone()));
        let found = adapters.per_example(&[Some(*name); 2], |net| host(net.forward(x.clone())));
        assert_near(&found.unwrap(), &expected, name);
        adapters.activate(name).unwrap();
        assert_near(&host(adapters.model().forward(x.clone())), &expected, name);
    }
    // Those that are not in the batch do not matter.
    adapters.assign(&[Some("plain"), Some("dora")]).unwrap();
    assert!(matches!(
        adapters.assign(&[Some("plain"), Some("nobody")]),
        Err(LoraError::UnknownAdapter { .. })
    ));
}

#[test]
fn threads_have_batches_of_their_own() {
    let device = Device::flex();
    let (_, adapters, _) = set(&device);
    let x = ids(2, 3, &device);
    let bare = host(adapters.base().forward(x.clone()));
    let both: BatchAdapters = adapters.assign(&[Some("plain"), Some("dora")]).unwrap();
    let here = both.run(|| {
        let there = std::thread::scope(|scope| {
            scope
                .spawn(|| host(adapters.model().forward(x.clone())))
                .join()
                .unwrap()
        });
        assert_eq!(there, bare);
        host(adapters.model().forward(x.clone()))
    });
    assert!(distance(&here, &bare) > 0.01);
}

/// Computes each example alone under its own adapter, and joins the values.
fn one_by_one(
    adapters: &NamedAdapters<Net>,
    names: &[Option<&str>],
    mut compute: impl FnMut(&Net, usize) -> Vec<f32>,
) -> Vec<f32> {
    let of = |(at, name): (usize, &Option<&str>)| {
        match name {
            Some(name) => adapters.activate(name).unwrap(),
            None => adapters.disable(),
        }
        compute(adapters.model(), at)
    };
    let all = names.iter().enumerate().flat_map(of).collect();
    adapters.disable();
    all
}
