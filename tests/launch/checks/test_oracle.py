"""Preflight of the oracle: what can be said to be wrong with its settings before a run starts."""

import json

from nemo_sspo.artifacts.sources.weight_headers import TensorHeader
from nemo_sspo.launch.checks import environments as check_environments
from nemo_sspo.launch.checks import oracle as check_oracle
from tests.json_edit import edit
from tests.launch.ready_run import found, only
from tests.launch.tiny_models import (
    ORACLE_CONFIG,
    ORACLE_TENSORS,
    oracle_layer,
    write_reward_model,
    write_safetensors,
    write_tensors,
    write_tokenizer,
)


def test_oracle(place):
    edit(place / "oracle" / "config.json", model_type="llama", source_prefix_id=None)
    assert "not a PairRM" in only()
    assert only("oracle.path=./absent") == "oracle.path=./absent: no such directory, and not a hub id (owner/name)"


def test_an_oracle_whose_weights_are_another_models(place):
    """What transformers or torch would drop unread, or fill with random values, is told by the files alone."""
    weights = place / "oracle" / "model.safetensors"
    write_tensors(weights, ORACLE_TENSORS | oracle_layer(1) | oracle_layer(2))
    edit(place / "oracle" / "config.json", num_hidden_layers=2)
    assert "its weights hold layer 2, config.json has 2 layers" in only()
    edit(place / "oracle" / "config.json", num_hidden_layers=4)
    assert "its weights lack layer 3, config.json has 4 layers" in only()
    edit(place / "oracle" / "config.json", num_hidden_layers=3)
    assert found() == []
    edit(place / "oracle" / "config.json", intermediate_size=4)
    assert "layer.0.intermediate.dense.weight is 3 x 2, config.json says 4 x 2" in only()
    edit(place / "oracle" / "config.json", intermediate_size=3, relative_attention=True)
    assert "lacks pretrained_model.encoder.rel_embeddings.weight, which config.json has" in only()
    edit(place / "oracle" / "config.json", relative_attention=False, hidden_size="2")
    assert "hidden_size='2' is no whole number" in only()
    edit(place / "oracle" / "config.json", hidden_size=2)
    write_tensors(weights, ORACLE_TENSORS | oracle_layer(1) | oracle_layer(2) | {"pooler.weight": [2]})
    assert "holds pooler.weight, of which config.json knows nothing" in only()
    write_tensors(weights, ORACLE_TENSORS | oracle_layer(1) | oracle_layer(2) | {"head_layer.4.bias": [2]})
    assert "head_layer.4.bias is 2, config.json says 1" in only()

    reward, weights = ("oracle=reward_model", "oracle.path=reward"), place / "reward" / "model.safetensors"
    write_reward_model(place / "reward")
    edit(place / "reward" / "config.json", num_hidden_layers=1)
    write_safetensors(weights, "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight", "score.weight")
    assert "its weights hold layer 1, config.json has 1 layers" in only(*reward)
    write_safetensors(weights, "model.layers.0.mlp.up_proj.weight", "lm_head.weight")
    assert "its weights lack score.weight or classifier.weight" in only(*reward)
    write_safetensors(weights, "model.layers.0.mlp.up_proj.lora_A.default.weight", "score.weight")
    assert "an adapter that is not merged" in only(*reward)
    write_safetensors(weights, "model.layers.0.mlp.up_proj.weight", "score.weight", dtype="F8_E4M3")
    assert "its weights are quantized (model.layers.0.mlp.up_proj.weight is F8_E4M3)" in only(*reward)
    (place / "reward" / "adapter_config.json").write_text("{}")
    assert "adapter_config.json asks for an adapter that is not merged" in only(*reward)


def test_an_oracle_whose_tokenizer_is_another_models(place):
    """The markers stand under other ids, or have no row, or nothing frames a text: seen without transformers."""
    edit(place / "oracle" / "config.json", cand2_prefix_id=7)
    assert "its tokenizer has <|candidate2|> as 260, config.json says 7" in only()
    edit(place / "oracle" / "config.json", cand2_prefix_id=260)
    weights = place / "oracle" / "model.safetensors"
    write_tensors(weights, ORACLE_TENSORS | {"pretrained_model.embeddings.word_embeddings.weight": [261, 2]})
    assert "its tokenizer has 262 tokens, the model 261 rows" in only()
    write_tensors(weights, ORACLE_TENSORS)
    edit(place / "oracle" / "tokenizer.json", post_processor=None)
    assert "its tokenizer encodes <|source|> as [258], not as [CLS] marker [SEP]" in only()


def test_a_ranker_of_llm_blender(place):
    """The markers are added behind the tokens of its backbone, and its weights must have their rows."""
    folder, backbone = place / "oracle", place / "oracle" / "backbone"
    backbone.mkdir()
    (backbone / "config.json").write_text(json.dumps(ORACLE_CONFIG))
    write_tokenizer(backbone)
    edit(folder / "config.json", ranker_type="pairranker", model_type="deberta", model_name="backbone")
    rows = "pretrained_model.embeddings.word_embeddings.weight"
    for key in ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id"):
        edit(folder / "config.json", **{key: None})
    write_tensors(folder / "model.safetensors", ORACLE_TENSORS | {rows: [260, 2]})
    assert found() == []
    write_tensors(folder / "model.safetensors", ORACLE_TENSORS | {rows: [259, 2]})
    assert "its tokenizer has 260 tokens, the model 259 rows" in only()


def test_reward_model(place):
    write_reward_model(place / "reward")
    reward = ("oracle=reward_model", "oracle.path=reward")
    assert found(*reward) == []
    assert "['DebertaV2PairRM'] is no sequence classifier" in only("oracle=reward_model", "oracle.path=oracle")
    edit(place / "reward" / "config.json", num_labels=None, id2label={"0": "bad", "1": "good"})
    assert "a classifier of 2 classes; a reward model has one output" in only(*reward)
    edit(place / "reward" / "config.json", num_labels=1, auto_map={"AutoModel": "code.py"})
    assert "give oracle.trust_remote_code=true" in only(*reward)
    assert found(*reward, "oracle.trust_remote_code=true") == []
    edit(place / "reward" / "config.json", auto_map=None)
    edit(place / "reward" / "config.json", vocab_size=255)
    assert "its tokenizer has 256 tokens, the model 255 rows" in only(*reward)
    edit(place / "reward" / "config.json", vocab_size=256)
    (place / "reward" / "model.safetensors").write_bytes(b"\x10")
    assert "not a safetensors file, or cut short" in only(*reward)
    (place / "reward" / "tokenizer.json").unlink()
    assert "no tokenizer beside the weights" in found(*reward)[1]
    (place / "reward" / "qwen.tiktoken").write_text("IQ== 0\n")
    assert "qwen.tiktoken: how it splits a text cannot be checked here" in found(*reward)[1]
    assert "no such directory" in only("oracle=reward_model", "oracle.path=./absent")


JUDGE = ("oracle=llm_judge", "oracle.model=m", "oracle.endpoint=http://127.0.0.1:8000/v1")


def test_llm_judge(place, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setattr(check_environments, "JUDGE_PACKAGE", "json")
    assert found(oracle=JUDGE) == []
    assert "not a URL" in only("oracle.endpoint=127.0.0.1", oracle=JUDGE)
    assert "hunter2" not in only("oracle.endpoint='http://me:hunter2@host/v1'", oracle=JUDGE)
    assert "oracle.template=absent.txt: cannot be read" in only("oracle.template=absent.txt", oracle=JUDGE)
    monkeypatch.setattr(check_environments, "JUDGE_PACKAGE", "no_such_client")
    assert "lacks no_such_client" in only(oracle=JUDGE)
    monkeypatch.setattr(check_environments, "JUDGE_PACKAGE", "json")
    monkeypatch.delenv("OPENAI_API_KEY")
    assert only(oracle=JUDGE).startswith("oracle.api_key_variable=OPENAI_API_KEY: not set")
    assert found("oracle.api_key_variable=null", oracle=JUDGE) == []


def test_a_plan_that_costs_more_than_the_cap_is_refused(place, monkeypatch):
    """25 prompts train with K=5 responses, both orders; 5 are held out, with 2 x 2 responses 1 + 2 opponents."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setattr(check_environments, "JUDGE_PACKAGE", "json")
    planned = 25 * 5 * 4 + 3 * (5 * 2 * 2 * 2)
    assert f"the run may ask for {planned} comparisons" in only(f"oracle.max_requests={planned - 1}", oracle=JUDGE)
    assert found(f"oracle.max_requests={planned}", oracle=JUDGE) == []
    fewer = ("data.prompts_per_iteration=3", f"oracle.max_requests={2 * 3 * 20 + 120}")
    assert found(*fewer, oracle=JUDGE) == []


def test_function_and_policy_judge(place):
    assert found(oracle=("oracle=function", "oracle.function=json:loads")) == []
    assert "lacks no_such_package" in only(oracle=("oracle=function", "oracle.function=no_such_package.rules:f"))
    assert found(oracle=("oracle=policy_judge",)) == []
    assert "cannot be read" in only("oracle.template=absent.txt", oracle=("oracle=policy_judge",))


def test_a_reward_model_that_its_one_gpu_cannot_hold(place, monkeypatch):
    write_reward_model(place / "reward")
    gpus = ("cluster.gpus=4", "precision=bf16")
    reward = ("oracle=reward_model", "oracle.path=reward", *gpus)
    assert found(*reward) == []
    monkeypatch.setattr(check_oracle, "model_headers", lambda files: {"w": TensorHeader("BF16", (27 * 10**9,))})
    assert found(*reward) == []
    assert "its weights take 101 GiB of the one GPU" in only(*reward, "oracle.precision=float32")
    monkeypatch.setattr(check_oracle, "model_headers", lambda files: {"w": TensorHeader("BF16", (70 * 10**9,))})
    assert "its weights take 130 GiB of the one GPU that an oracle has" in only(*reward)
    assert found(*reward, "oracle.gpu_memory_gib=180") == []
    assert found("oracle=reward_model", "oracle.path=reward") == []  # on a CPU


def test_a_policy_that_judges(place):
    """Its context is within its positions and what the engine holds; each verdict is one of its tokens."""
    judge = ("oracle=policy_judge",)
    assert found(*judge, oracle=()) == []
    told = only(*judge, "oracle.context_tokens=8192", oracle=())
    assert told.startswith("oracle.context_tokens=8192 and an answer come to 8193 tokens, over the 8192 positions of")
    told = only(*judge, "+engine.extra.max_model_len=4096", oracle=())
    assert "come to 4097 tokens, over engine.extra.max_model_len=4096" in told
    template = place / "question.txt"
    template.write_text("{prompt}{first}{second}")  # eight more tokens are the chat template's
    assert found(*judge, "oracle.template=question.txt", "oracle.context_tokens=8", oracle=()) == []
    template.write_text("?{prompt}{first}{second}")
    told = only(*judge, "oracle.template=question.txt", "oracle.context_tokens=8", oracle=())
    assert told.startswith("oracle.context_tokens=8: the question alone is longer")
    tokenizer = place / "policy" / "tokenizer.json"
    model = json.loads(tokenizer.read_text())["model"]
    edit(tokenizer, model=model | {"vocab": {token: id_ for token, id_ in model["vocab"].items() if token != "B"}})
    assert "its tokenizer has no single token for 'B', so it cannot judge" in only(*judge, oracle=())


def test_what_the_engine_is_told_to_hold(place):
    setting = "+engine.extra.max_model_len"
    assert found(f"{setting}=8192", f"{setting.removeprefix('+')}=null") == []
    assert "over engine.extra.max_model_len=500; leave that out, or lower them" in only(f"{setting}=500")
    assert "engine.extra.max_model_len=8193: over the 8192 positions of policy=policy" in only(f"{setting}=8193")
    assert "engine.extra.max_model_len=4k: expected a whole number of tokens" in only(f"{setting}=4k")
