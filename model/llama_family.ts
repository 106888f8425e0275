/** The family of Llamas, for whoever asks for models by name, and how other programs write them.
 * @module */
import type { ModelFamily } from "./family.ts";
import { Llama, llamaConfig, llamaFlavors } from "./llama.ts";
import type { TransformerSizes } from "./sizes.ts";

/** A part of a block: its name here, in `transformers`, and in GGUF. */
const PARTS: readonly (readonly [ours: string, huggingFace: string, gguf: string])[] = [
  ["attention.wq", "self_attn.q_proj", "attn_q"],
  ["attention.wk", "self_attn.k_proj", "attn_k"],
  ["attention.wv", "self_attn.v_proj", "attn_v"],
  ["attention.wo", "self_attn.o_proj", "attn_output"],
  ["feed_forward.w1", "mlp.gate_proj", "ffn_gate"],
  ["feed_forward.w3", "mlp.up_proj", "ffn_up"],
  ["feed_forward.w2", "mlp.down_proj", "ffn_down"],
  ["attention_norm", "input_layernorm", "attn_norm"],
  ["ffn_norm", "post_attention_layernorm", "ffn_norm"],
];

/** The names of another program by ours.
 * @param at which name of a part is its. */
function names(
  { numLayers, tiedEmbeddings }: TransformerSizes,
  at: 1 | 2,
  [layers, table, norm, output]: readonly string[],
): ReadonlyMap<string, string> {
  const parts = (n: number) =>
    PARTS.map((part) => [`layers.${n}.${part[0]}.weight`, `${layers}.${n}.${part[at]}.weight`] as const);
  return new Map([
    ["tok_embeddings.weight", `${table}.weight`],
    ...Array.from({ length: numLayers }, (_, n) => parts(n)).flat(),
    ["norm.weight", `${norm}.weight`],
    ...(tiedEmbeddings ? [] : [["output.weight", `${output}.weight`]] as const),
  ]);
}

/** Llama 2 and 3. */
export const llamaFamily: ModelFamily = {
  name: "llama",
  flavors: llamaFlavors,
  sizes: llamaConfig,
  build: (sizes) => new Llama(sizes),
  huggingFace: {
    name: "llama",
    architecture: "LlamaForCausalLM",
    ropeScaling: "llama3",
    names: (sizes) => names(sizes, 1, ["model.layers", "model.embed_tokens", "model.norm", "lm_head"]),
    assumed: {
      hidden_act: ["silu"],
      attention_bias: [false],
      mlp_bias: [false],
      partial_rotary_factor: [1],
      pretraining_tp: [1],
      sliding_window: [null],
      use_sliding_window: [false],
      num_local_experts: [null, 0, 1],
      quantization_config: [null],
    },
  },
  gguf: {
    name: "llama",
    names: (sizes) => names(sizes, 2, ["blk", "token_embd", "output_norm", "output"]),
    assumed: {
      "expert_count": [0],
      "use_parallel_residual": [false],
      "attention.sliding_window": [0],
      "attention.causal": [true],
      "attention.scale": [0],
      "rope.scaling.type": ["none", ""],
      "rope.scale_linear": [1],
      "rope.scaling.factor": [1, 0],
      "logit_scale": [1, 0],
      "embedding_scale": [1, 0],
      "residual_scale": [1, 0],
    },
  },
  hasTurnedRows: (parameter) => /\.w[qk]\.weight$/.test(parameter),
};
