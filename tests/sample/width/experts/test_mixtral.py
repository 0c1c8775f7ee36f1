"""Fidelity of Mixtral: sec. 2.1 in plain loops, table 1 against what the paper counts, and checkpoints as released."""
import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from dynnotes.execute import price
from dynnotes.sample.width.experts.mixtral import Mixtral, MixtureOfExperts


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def times(matrix, x):
    return [dot(row, x) for row in matrix.tolist()]


def silu(v):
    return v / (1 + math.exp(-v))


def experts_by_hand(mix, token, k):
    """(y, weights, scores) of one token: softmax of the k best scores, the sum of as many SwiGLU networks."""
    scores = times(mix.router.score.weight, token)
    best = sorted(range(len(scores)), key=lambda i: -scores[i])[:k]
    total = sum(math.exp(scores[i]) for i in best)
    weights = [math.exp(s) / total if i in best else 0.0 for i, s in enumerate(scores)]
    y = [0.0] * len(token)
    for e in best:
        inner, outer = mix.experts.w1[e], mix.experts.w2[e]
        gate, up = times(inner[:len(inner) // 2], token), times(inner[len(inner) // 2:], token)
        hidden = [silu(g) * u for g, u in zip(gate, up, strict=True)]
        y = [a + weights[e] * b for a, b in zip(y, times(outer, hidden), strict=True)]
    return y, weights, scores


def normed(norm, token):
    scale = 1 / math.sqrt(dot(token, token) / len(token) + norm.eps)
    return [v * scale * g for v, g in zip(token, norm.weight.tolist(), strict=True)]


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("how", ["dense", "sparse"])
def test_equation_of_the_experts_by_hand(how, k):
    """Sec. 2.1: y = sum of Softmax(TopK(x W_g))_i SwiGLU_i(x)."""
    torch.manual_seed(0)
    mix = MixtureOfExperts(6, 5, 5).double().eval().execute(how)
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        y, trace = mix(x, k)
    for b in range(3):
        for t in range(4):
            expected, weights, _ = experts_by_hand(mix, x[b, t].tolist(), k)
            torch.testing.assert_close(y[b, t], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(trace.decisions[0].weight[b, t], torch.tensor(weights, dtype=torch.float64))
    each = 3 * 6 * 5                                                           # three matrices of one network
    assert trace.spent.tolist() == [4 * (6 * 5 + k * each)] * 3


def test_equation_of_the_whole_model_and_its_loss_by_hand():
    """Norm, experts and residual after each attention (which tests/nets/test_rotary.py does by hand), then the head."""
    torch.manual_seed(1)
    model, (x,), target = Mixtral.demo()
    model = model.double().eval()
    for norm in (*model.norm, model.head[0]):
        torch.nn.init.normal_(norm.weight)
    with torch.no_grad():
        y, _ = model(x)
        loss = model.loss((x,), target).item()
        tokens, balance = model.embed.weight[x], []
        for look, norm, mix in zip(model.look, model.norm, model.mix, strict=True):
            tokens, chosen, probs = look(tokens), [0.0] * 8, [0.0] * 8
            after = tokens.clone()
            for b in range(6):
                for t in range(7):
                    answer, weights, scores = experts_by_hand(mix, normed(norm, tokens[b, t].tolist()), 2)
                    after[b, t] += torch.tensor(answer, dtype=torch.float64)
                    total = sum(math.exp(s) for s in scores)
                    chosen = [c + (w > 0) / (2 * 42) for c, w in zip(chosen, weights, strict=True)]
                    probs = [p + math.exp(s) / total / 42 for p, s in zip(probs, scores, strict=True)]
            tokens = after
            balance.append(8 * dot(chosen, probs))
        task = 0.0
        for b in range(6):
            for t in range(7):
                logits = times(model.head[1].weight, normed(model.head[0], tokens[b, t].tolist()))
                torch.testing.assert_close(y[b, t], torch.tensor(logits, dtype=torch.float64), rtol=1e-9, atol=1e-9)
                task += math.log(sum(math.exp(v) for v in logits)) - logits[target[b, t]]
    assert abs(loss - task / 42 - 0.02 * sum(balance) / 2) < 1e-9


def test_limit_all_experts_are_the_soft_mixture_and_one_has_weight_one():
    torch.manual_seed(2)
    mix = MixtureOfExperts(6, 5, 4).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    with torch.no_grad():
        soft = torch.einsum("bte,bted->btd", mix.router(x).softmax(-1), mix.experts(x.flatten(0, 1)).view(2, 3, 4, 6))
        torch.testing.assert_close(mix(x, 4)[0], soft, rtol=1e-12, atol=1e-12)
        alone = mix(x, 1)[1].decisions[0]
    assert (alone.weight == alone.gate).all() and (alone.gate.sum(-1) == 1).all()


def test_conservation_every_token_uses_k_experts_whose_weights_sum_to_one():
    torch.manual_seed(3)
    model, (x,), _ = Mixtral.demo()
    for k in Mixtral.budget.values:
        with torch.no_grad():
            _, trace = model.eval().at(k)(x)
        assert len(trace.decisions) == 2
        for d in trace.decisions:
            assert (d.gate.sum(-1) == k).all()
            assert not d.weight[d.gate == 0].any()
            torch.testing.assert_close(d.weight.sum(-1), torch.ones(6, 7))


def test_count_of_sparse_and_active_parameters_and_what_a_token_costs():
    """Table 1 summed by hand; the paper says 47B and 13B (abstract), and that cost is proportional to the latter."""
    d, layers, hidden, heads, groups, size, vocabulary, experts, k = 4096, 32, 14336, 32, 8, 128, 32000, 8, 2
    attention, expert = d * size * (heads + 2 * groups) + heads * size * d, 3 * d * hidden
    shared = layers * (attention + experts * d + 2 * d) + 2 * vocabulary * d + d
    sparse, active = shared + layers * experts * expert, shared + layers * k * expert
    assert (sparse, active) == (46_702_792_704, 12_879_925_248)
    assert (round(sparse / 1e9), round(active / 1e9)) == (47, 13)
    with torch.device("meta"):
        model, x = Mixtral.published()[0].make(), torch.zeros(1, 1, d)
    assert sum(p.numel() for p in model.parameters()) == sparse
    macs = price(model.head, x).macs
    for look, mix in zip(model.look, model.mix, strict=True):
        macs += price(look, x).macs + price(mix.router, x).macs + k * price(mix.experts, x[0]).macs // experts
    norms, embeddings, products = (2 * layers + 1) * d, vocabulary * d, layers * 2 * heads * size
    assert macs == active - norms - embeddings + products                      # one token, which sees itself alone


# Checkpoints ---------------------------------------------------------------------------------------------------------

CONFIG = {"architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
          "hidden_act": "silu", "hidden_size": 16, "initializer_range": 0.02, "intermediate_size": 12,
          "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 4,
          "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 2, "num_local_experts": 8,
          "output_router_logits": False, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "router_aux_loss_coef": 0.02,
          "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
          "vocab_size": 12}                                                    # the released one's words, sizes apart


def as_released(model):
    """{name: tensor} under the names that the released files use."""
    found = {"model.embed_tokens.weight": model.embed.weight, "model.norm.weight": model.head[0].weight,
             "lm_head.weight": model.head[1].weight}
    for i in range(2):
        look, mix, layer = model.look[i], model.mix[i], f"model.layers.{i}"
        found[f"{layer}.input_layernorm.weight"] = look.norm.weight
        found[f"{layer}.post_attention_layernorm.weight"] = model.norm[i].weight
        found[f"{layer}.self_attn.q_proj.weight"] = look.query_key_value.weight[:16]
        found[f"{layer}.self_attn.k_proj.weight"] = look.query_key_value.weight[16:24]
        found[f"{layer}.self_attn.v_proj.weight"] = look.query_key_value.weight[24:]
        found[f"{layer}.self_attn.o_proj.weight"] = look.out.weight
        found[f"{layer}.block_sparse_moe.gate.weight"] = mix.router.score.weight
        for e in range(8):
            expert = f"{layer}.block_sparse_moe.experts.{e}"
            found[f"{expert}.w1.weight"] = mix.experts.w1[e, :12]              # the gate
            found[f"{expert}.w3.weight"] = mix.experts.w1[e, 12:]
            found[f"{expert}.w2.weight"] = mix.experts.w2[e]
    return {name: t.detach().clone().contiguous() for name, t in found.items()}


def write(folder, tensors, shards=1, **changes):
    """A checkpoint in `folder`; with several shards, an index says which tensor is where."""
    config = {name: value for name, value in {**CONFIG, **changes}.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    files = {name: f"model-{1 + i % shards:05}-of-{shards:05}.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        save_file({n: tensors[n] for n in tensors if files[n] == file}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def trained():
    """A model, random in all its weights."""
    torch.manual_seed(4)
    model, (x,), _ = Mixtral.demo()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return model.eval(), x


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_checkpoint_under_the_released_names_gives_the_model_back(tmp_path, dtype, shards):
    model, x = trained()
    model = model.to(dtype)
    write(tmp_path, as_released(model), shards)
    found = Mixtral.from_pretrained(tmp_path)
    assert not found.training and found.k == 2
    for name, p in model.named_parameters():
        assert torch.equal(found.get_parameter(name), p), name
        assert found.get_parameter(name).dtype is dtype
    with torch.no_grad():
        assert torch.equal(found(x)[0], model(x)[0])


def test_another_dtype_can_be_asked_for(tmp_path):
    model, _ = trained()
    write(tmp_path, as_released(model.bfloat16()))
    found = Mixtral.from_pretrained(str(tmp_path), dtype=torch.float64)
    for name, p in model.named_parameters():
        assert torch.equal(found.get_parameter(name), p.double()), name


def test_words_in_and_out_may_share_their_weights_and_old_files_hold_speeds_of_turning(tmp_path):
    model, x = trained()
    model.head[1].weight = model.embed.weight
    tensors = as_released(model)
    del tensors["lm_head.weight"]
    write(tmp_path, {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)},
          tie_word_embeddings=True)
    with torch.no_grad():
        assert torch.equal(Mixtral.from_pretrained(tmp_path)(x)[0], model(x)[0])


def test_what_is_read_can_be_trained(tmp_path):
    model, x = trained()
    write(tmp_path, as_released(model))
    found = Mixtral.from_pretrained(tmp_path).train()
    found.loss((x,), x).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in found.parameters())


@pytest.mark.parametrize(("changes", "message"), [
    ({"model_type": "mistral"}, r"config\.json: model_type is 'mistral', not 'mixtral'"),
    ({"model_type": ...}, r"config\.json: model_type is None, not 'mixtral'"),
    ({"hidden_act": "gelu"}, r"config\.json: hidden_act is 'gelu'"),
    ({"sliding_window": 4096}, r"config\.json: sliding_window is 4096"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, r"config\.json: rope_scaling is .*linear"),
    ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, r"config\.json: rope_scaling is .*yarn"),
    ({"quantization_config": {"quant_method": "gptq"}}, r"config\.json: quantization_config is .*gptq"),
    ({"num_local_experts": ...}, r"config\.json: num_local_experts is None, not a number of at least 1"),
    ({"num_hidden_layers": 0}, r"config\.json: num_hidden_layers is 0, not a number of at least 1"),
    ({"num_key_value_heads": 3}, r"config\.json: 4 heads cannot share the keys of 3 groups"),
    ({"num_hidden_layers": 3}, r"model\.safetensors: lacks model\.layers\.2\.self_attn\.q_proj\.weight, and 30 more"),
    ({"num_hidden_layers": 1}, r"model\.safetensors: has model\.layers\.1\.\S+, and 30 more that config\.json leaves"),
    ({"vocab_size": 13}, r"model\.safetensors: model\.embed_tokens\.weight is \[12, 16\]; .* asks for \[13, 16\]"),
    ({"intermediate_size": 10}, r"experts\.0\.w1\.weight is \[12, 16\]; config\.json asks for \[10, 16\]"),
])
def test_another_architecture_is_refused_by_name(tmp_path, changes, message):
    write(tmp_path, as_released(trained()[0]), **changes)
    with pytest.raises(ValueError, match=message):
        Mixtral.from_pretrained(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: there is no such file"):
        Mixtral.from_pretrained(tmp_path)
    write(tmp_path, as_released(trained()[0]), 3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model-00002-of-00003\.safetensors: there is no such file"):
        Mixtral.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has neither model\.safetensors nor model\.safetensors\.index\.json"):
        Mixtral.from_pretrained(tmp_path)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("file", ["model.safetensors", "model-00002-of-00003.safetensors"])
def test_a_file_that_is_cut_short_is_named(tmp_path, file, share):
    write(tmp_path, as_released(trained()[0]), 3 if "of" in file else 1)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"{file}: is damaged or cut short"):
        Mixtral.from_pretrained(tmp_path)


@pytest.mark.parametrize(("file", "text", "message"), [
    ("config.json", '{"model_type": "mix', r"config\.json: is damaged, or no JSON"),
    ("config.json", "[1, 2]", r"config\.json: is no JSON object"),
    ("model.safetensors.index.json", "", r"index\.json: is damaged, or no JSON"),
    ("model.safetensors.index.json", "{}", r"index\.json: has no weight_map"),
    ("model.safetensors.index.json", '{"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}',
     r"index\.json: has no weight_map from tensors to files beside it"),
])
def test_damaged_lists_are_named(tmp_path, file, text, message):
    write(tmp_path, as_released(trained()[0]), 3)
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        Mixtral.from_pretrained(tmp_path)


def test_a_missing_tensor_is_named_with_its_file(tmp_path):
    tensors = as_released(trained()[0])
    gone = "model.layers.1.block_sparse_moe.experts.7.w2.weight"
    write(tmp_path, {name: t for name, t in tensors.items() if name != gone})
    with pytest.raises(ValueError, match=rf"model\.safetensors: lacks {gone}, and 0 more of the {len(tensors)} "):
        Mixtral.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    write(tmp_path, tensors, 3)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    shard = tmp_path / index[gone]
    save_file({name: t for name, t in load_file(shard).items() if name != gone}, shard)
    with pytest.raises(ValueError, match=rf"{index[gone]}: lacks {gone}, which model\.safetensors\.index\.json says"):
        Mixtral.from_pretrained(tmp_path)


def test_more_than_a_mixtral_is_refused(tmp_path):
    write(tmp_path, {**as_released(trained()[0]), "model.layers.0.self_attn.q_proj.bias": torch.ones(16)})
    with pytest.raises(ValueError, match=r"model\.safetensors: has model\.layers\.0\.self_attn\.q_proj\.bias, and 0"):
        Mixtral.from_pretrained(tmp_path)
