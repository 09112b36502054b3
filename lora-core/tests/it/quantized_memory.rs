//! Memory of a packed weight, at rest and between a forward and a backward pass.

#![expect(unsafe_code, reason = "a global allocator that counts")]

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use lora_core::{
    BaseDType, BaseFloats, LoraConfig, LoraInit, LoraLinear, LoraLinearConfig, Quantization,
    QuantizeConfig, TargetModules, attach, narrow, quantize,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};
use test_support::process::passed_alone;

/// The system's allocator, which counts.
struct Counting;

/// Bytes that are allocated now.
static LIVE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Module, Debug)]
struct Net {
    below: LoraLinear,
    above: LoraLinear,
}

/// Number format of the packed weights.
#[derive(Clone, Copy)]
enum Format {
    Quantized(Quantization),
    Floats(BaseDType),
}

#[test]
fn a_packed_weight_takes_its_bytes_and_no_dense_copy_lives_between_the_passes() {
    if passed_alone(
        "quantized_memory::a_packed_weight_takes_its_bytes_and_no_dense_copy_lives_between_the_passes",
    ) {
        return;
    }
    const D: usize = 1024;
    const DENSE: isize = (4 * D * D) as isize;
    let device = Device::flex().autodiff();
    let live = || LIVE.load(Ordering::Relaxed);
    let formats = [
        Format::Quantized(Quantization::Nf4),
        Format::Quantized(Quantization::Int8),
        Format::Floats(BaseDType::Bf16),
    ];
    for format in formats {
        let layer = || LoraLinearConfig::new(D, D).with_bias(false).init(&device);
        let net = Net {
            below: layer(),
            above: layer(),
        };
        // Burn's layers have their weights once these are asked for.
        let _ = (net.below.weight.val(), net.above.weight.val());
        let before = live();
        let (net, modules) = match format {
            Format::Quantized(kind) => quantize(net, &QuantizeConfig::new(kind)).unwrap(),
            Format::Floats(dtype) => narrow(net, &BaseFloats::new(dtype)).unwrap(),
        };
        let bytes: usize = modules.iter().map(|module| module.bytes).sum();
        let freed = before - live();
        let kept = 2 * DENSE - freed;
        assert!(
            (kept - bytes as isize).abs() < DENSE / 64,
            "{kept} bytes for {bytes}"
        );

        let config = LoraConfig::new(2)
            .with_init(LoraInit::Random)
            .with_targets(TargetModules::names(["below"]));
        let net = attach(net, &config).unwrap().into_module();
        let x = Tensor::<2>::random([2, D], Distribution::Default, &device).require_grad();
        let pass = || {
            let before = live();
            let y = net.above.forward(net.below.forward(x.clone()));
            let loss = y.square().sum();
            let between = live() - before;
            let grads = loss.backward();
            assert!(x.grad(&grads).is_some());
            drop(grads);
            between.max(live() - before)
        };
        // Threads make their buffers in the first pass that they take part in, on a busy machine a later one.
        let least = (0..10).map(|_| pass()).min().unwrap();
        assert!(
            least < DENSE / 16,
            "{least} bytes more between the passes or after"
        );
    }
}
