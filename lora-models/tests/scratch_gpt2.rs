//! Scratch timing, not kept.
#![recursion_limit = "256"]
use burn::tensor::{Device, Int, Tensor, TensorData, Bool};
use burn::module::Module;
use lora_core::{LoraConfig, TargetModules};
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::generate::*;
use std::time::Instant;

fn rss() -> String {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines().filter(|l| l.starts_with("VmHWM") || l.starts_with("VmRSS")).collect::<Vec<_>>().join(" ")
}

#[test]
#[ignore]
fn step() {
    let device = Device::flex().autodiff();
    let layers: usize = std::env::var("LAYERS").ok().and_then(|s| s.parse().ok()).unwrap_or(12);
    let config = Gpt2Config { n_layer: layers, ..Gpt2Config::default() };
    let t = Instant::now();
    let model = Gpt2LmHead::init(&config, 0, &device).unwrap();
    eprintln!("init {:?} {}", t.elapsed(), rss());
    let (model, _) = model.attach(&LoraConfig::new(8).with_targets(TargetModules::names(["c_attn"]))).unwrap();
    let ids: Vec<i64> = (0..8 * 128).map(|i| (i * 7919 % 50257) as i64).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [8, 128]), &device);
    let mask = Tensor::<2, Bool>::from_data(TensorData::new(vec![true; 1024], [8, 128]), &device);
    let mask = std::env::var("MASK").ok().map(|_| mask);
    for _ in 0..4 {
        let t = Instant::now();
        let hidden = model.forward_hidden(ids.clone(), mask.clone(), None, None);
        let f = t.elapsed();
        let hidden: Tensor<2> = hidden.reshape([1024, 768]);
        let logits = model.logits(hidden);
        let l = t.elapsed();
        let logp = burn::tensor::activation::log_softmax(logits, 1);
        let loss = logp.gather(1, ids.clone().reshape([1024, 1])).mean().neg();
        let g = t.elapsed();
        let grads = loss.backward();
        let b = t.elapsed();
        let got = model.transformer.h[0].attn.c_attn.adapter().unwrap().b.val().grad(&grads).is_some();
        eprintln!("trunk {f:.2?} head {:.2?} loss {:.2?} backward {:.2?} total {b:.2?} {got} {}", l - f, g - l, b - g, rss());
    }
}

#[test]
#[ignore]
fn gen_speed() {
    let device = Device::flex();
    let model = Gpt2LmHead::init(&Gpt2Config::default(), 0, &device).unwrap();
    let prompts: Vec<Vec<u32>> = (0..4u32).map(|i| (0..30 + i).map(|t| (t * 31 + i * 7) % 50257).collect()).collect();
    for (name, strategy) in [("greedy", Strategy::Greedy), ("beam 5", Strategy::Beam(BeamSearch { beams: 5, ..BeamSearch::default() })), ("sample", Strategy::Sample(Sampling { top_p: 0.9, ..Default::default() }))] {
        for new in [8, 40] {
            let config = GenerationConfig::new(new).with_strategy(strategy);
            let t = Instant::now();
            generate(&model, &prompts, &config, &device).unwrap();
            eprintln!("{name} 4 prompts x {new}: {:?} {}", t.elapsed(), rss());
        }
    }
}

#[test]
#[ignore]
fn load_dir() {
    let dir = std::env::var("DIR").unwrap();
    let t = Instant::now();
    let (m, _, r) = Gpt2LmHead::load(&dir, &Device::flex()).unwrap();
    eprintln!("{r} {:?} {}", t.elapsed(), rss());
    drop(m.valid());
}

fn best(n: usize, mut f: impl FnMut() -> f32) -> f64 {
    let mut b = f64::MAX;
    for _ in 0..n { let t = Instant::now(); std::hint::black_box(f()); b = b.min(t.elapsed().as_secs_f64()); }
    b * 1e3
}

#[test]
#[ignore]
fn micro() {
    use burn::tensor::{Distribution, activation};
    let device = Device::flex().autodiff();
    let x = Tensor::<3>::random([8, 128, 3072], Distribution::Default, &device).require_grad();
    let run = |f: &dyn Fn(Tensor<3>) -> Tensor<3>| best(25, || { let y = f(x.clone()); let g = y.sum().backward(); x.grad(&g).unwrap().slice([0..1,0..1,0..1]).into_scalar() });
    eprintln!("identity {:.1}", run(&|x| x * 1.0));
    eprintln!("gelu_approximate {:.1}", run(&|x| activation::gelu_approximate(x)));
    eprintln!("ours {:.1}", run(&|x| lora_models::activation::Activation::GeluTanh.forward(x)));
    eprintln!("square {:.1}", run(&|x| { let i = (x.clone().square()*(2.0*0.7978845608*0.044715)+2.0*0.7978845608)*x.clone(); activation::sigmoid(i)*x }));
    eprintln!("tanh form {:.1}", run(&|x| { let i = ((x.clone()*x.clone())*(0.7978845608*0.044715)+0.7978845608)*x.clone(); (i.tanh()+1.0)*x*0.5 }));
    eprintln!("sigmoid only {:.1}", run(&|x| activation::sigmoid(x)));
    eprintln!("tanh only {:.1}", run(&|x| x.tanh()));

    let fused = Tensor::<3>::random([8, 128, 2304], Distribution::Default, &device).require_grad();
    let mask1 = Tensor::<4>::zeros([1, 1, 128, 128], &device);
    let maskfull: Tensor<4> = mask1.clone().expand([8, 12, 128, 128]) + 0.0;
    let maskb: Tensor<4> = mask1.clone().expand([8, 1, 128, 128]) + 0.0;
    let att = |qkv: &dyn Fn(Tensor<3>) -> [Tensor<4>; 3], mask: Option<Tensor<4>>, soft: bool| best(25, || {
        let [q, k, v] = qkv(fused.clone());
        let s = (q * 0.125).matmul(k.swap_dims(2, 3));
        let s = match &mask { Some(m) => s + m.clone(), None => s };
        let p = if soft { activation::softmax(s, 3) } else { s };
        let o: Tensor<3> = p.matmul(v).swap_dims(1, 2).reshape([8, 128, 768]);
        let g = o.sum().backward();
        fused.grad(&g).unwrap().slice([0..1, 0..1, 0..1]).into_scalar()
    });
    let narrow = |f: Tensor<3>| [0, 1, 2].map(|i| f.clone().narrow(2, i * 768, 768).reshape([8, 128, 12, 64]).swap_dims(1, 2));
    let perm = |f: Tensor<3>| { let f: Tensor<5> = f.reshape([8, 128, 3, 12, 64]).permute([2, 0, 3, 1, 4]); [0, 1, 2].map(|i| f.clone().narrow(0, i, 1).squeeze_dim::<4>(0)) };
    eprintln!("attention narrow, mask 1 {:.1}", att(&narrow, Some(mask1.clone()), true));
    eprintln!("attention narrow, mask b {:.1}", att(&narrow, Some(maskb.clone()), true));
    eprintln!("attention narrow, mask full {:.1}", att(&narrow, Some(maskfull.clone()), true));
    eprintln!("attention narrow, no mask {:.1}", att(&narrow, None, true));
    eprintln!("attention narrow, no mask no softmax {:.1}", att(&narrow, None, false));
    let att5 = |mask: Option<Tensor<4>>| best(25, || {
        let f: Tensor<5> = fused.clone().reshape([8, 128, 3, 12, 64]).permute([2, 0, 3, 1, 4]);
        let [q, k, v] = [0, 1, 2].map(|i| f.clone().narrow(0, i, 1));
        let s: Tensor<4> = (q * 0.125).matmul(k.swap_dims(3, 4)).squeeze_dim(0);
        let s = match &mask { Some(m) => s + m.clone(), None => s };
        let p: Tensor<5> = activation::softmax(s, 3).unsqueeze();
        let o: Tensor<3> = p.matmul(v).swap_dims(2, 3).reshape([8, 128, 768]);
        let g = o.sum().backward();
        fused.grad(&g).unwrap().slice([0..1, 0..1, 0..1]).into_scalar()
    });
    eprintln!("attention 5d, mask 1 {:.1}", att5(Some(mask1.clone())));
    eprintln!("attention perm, mask 1 {:.1}", att(&perm, Some(mask1.clone()), true));
    let perm4 = |f: Tensor<3>| { let f: Tensor<4> = f.reshape([8, 128, 36, 64]).swap_dims(1, 2); [0, 1, 2].map(|i| f.clone().narrow(1, i * 12, 12)) };
    eprintln!("attention perm4, mask 1 {:.1}", att(&perm4, Some(mask1.clone()), true));
    eprintln!("attention perm, mask full {:.1}", att(&perm, Some(maskfull.clone()), true));
    eprintln!("attention perm, no mask {:.1}", att(&perm, None, true));
    eprintln!("attention perm, no mask no softmax {:.1}", att(&perm, None, false));
}
