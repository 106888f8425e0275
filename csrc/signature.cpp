#include "signature.h"

#include <algorithm>
#include <sstream>

#include "failure.h"

namespace titan {
namespace {

Signature parse(const char* name, const char* operands, const char* attributes, const char* dtypes) {
  Signature signature;
  signature.name = name;
  std::istringstream operand_words(operands), attribute_words(attributes), dtype_words(dtypes);
  bool after_arrow = false;
  for (std::string word; operand_words >> word;) {
    if (word == "->") after_arrow = true;
    else if (word == "scratch") signature.scratch = true;
    else {
      const bool optional = word.back() == '?';
      if (optional) word.pop_back();
      const bool variadic = word.back() == '*';
      if (variadic) word.pop_back();
      const bool float8 = word.back() == '^', bf16 = float8 || word.back() == '~';
      if (bf16) word.pop_back();
      (after_arrow ? signature.outputs : signature.inputs).push_back({word, variadic, optional, bf16, float8});
    }
  }
  for (std::string word; attribute_words >> word;) {
    const size_t colon = word.find(':');
    signature.attributes.push_back({word.substr(0, colon), word.find("[]") != std::string::npos});
  }
  for (std::string word; dtype_words >> word;)
    for (uint32_t dtype = 0; dtype < NUM_DTYPES; dtype++)
      if (word == name_of(DType{dtype})) signature.dtypes.push_back(DType{dtype});
  for (const DType dtype : signature.dtypes)
    signature.dtypes_text += text(dtype == signature.dtypes.front() ? "" : dtype == signature.dtypes.back() ? " or " : ", ", name_of(dtype));
  return signature;
}

/// Calls each(operand, how many) for the groups in order; a variadic input group has (inputs - fixed) / groups members, outputs likewise.
template <class Each> void each_group(const std::vector<Signature::Operand>& operands, int total, Each each) {
  int fixed = 0, groups = 0;
  for (const auto& operand : operands) operand.variadic ? groups++ : fixed++;
  for (const auto& operand : operands) each(operand, operand.variadic ? (total - fixed) / groups : 1);
}

const Signature::Operand* find_operand(const Signature& signature, Split split, int i, int* member) {
  const Signature::Operand* found = nullptr;
  int first = 0;
  auto look = [&](const Signature::Operand& operand, int count) {
    if (!found && i < first + count) found = &operand, *member = i - first;
    first += count;
  };
  each_group(signature.inputs, split.inputs, look);
  each_group(signature.outputs, split.outputs, look);
  return found;
}

}  // namespace

const std::vector<Signature>& signatures() {
  static const std::vector<Signature> all = {
#define KERNEL(name, operands, attributes, dtypes) parse(#name, operands, attributes, dtypes),
#define COLLECTIVE KERNEL
#define MAP(name, arity)
#include "kernels.def"
#undef KERNEL
#undef MAP
  };
  return all;
}

std::string split_operands(const Signature& signature, int64_t num_operands, const Attribute* words, int64_t num_words, Split* split) {
  // `n` sizes every variadic group, `inputs` the variadic inputs; without them one group takes what is left.
  int64_t n = -1, inputs = -1, at = 0;
  for (const auto& attribute : signature.attributes) {
    if (at >= num_words) return text("attribute ", attribute.name, " is missing; expected: ", signature.attributes.size(), " attributes");
    const int64_t word = words[at++].i;
    if (!attribute.array) {
      if (attribute.name == "n") n = word;
      if (attribute.name == "inputs") inputs = word;
    } else if (word < 0 || word > num_words - at) {
      return text("attribute ", attribute.name, " claims ", word, " elements; expected: at most ", num_words - at);
    } else {
      at += word;
    }
  }
  if (at != num_words) return text("has ", num_words, " attribute words; expected: ", at);

  int64_t fixed[2] = {0, 0}, groups[2] = {0, 0};
  for (const auto& operand : signature.inputs) operand.variadic ? groups[0]++ : fixed[0]++;
  for (const auto& operand : signature.outputs) operand.variadic ? groups[1]++ : fixed[1]++;
  const int64_t rest = num_operands - fixed[0] - fixed[1] - signature.scratch;
  auto refuse = [&] { return text("has ", num_operands, " operands, which do not fit ", signature.name, "'s inputs, outputs and attributes"); };
  int64_t sizes[2] = {groups[0] ? rest : 0, groups[0] ? 0 : rest};
  if (n < -1 || inputs < -1) return refuse();
  if (n != -1) sizes[0] = sizes[1] = n;
  else if (inputs != -1) sizes[0] = inputs, sizes[1] = inputs > rest ? 0 : rest - inputs;
  for (int side = 0; side < 2; side++)
    if (sizes[side] < 0 || sizes[side] > num_operands || (!groups[side] && sizes[side])) return refuse();
  const bool needs_output = std::any_of(signature.outputs.begin(), signature.outputs.end(), [](const auto& operand) { return operand.variadic && !operand.optional; });
  if (groups[0] * sizes[0] + groups[1] * sizes[1] != rest || (needs_output && !sizes[1])) return refuse();
  split->inputs = static_cast<int>(fixed[0] + groups[0] * sizes[0]);
  split->outputs = static_cast<int>(fixed[1] + groups[1] * sizes[1]);
  return "";
}

std::string operand_name(const Signature& signature, Split split, int i) {
  int member = 0;
  const auto* operand = find_operand(signature, split, i, &member);
  if (!operand) return "scratch";
  return operand->variadic ? text(operand->name, "[", member, "]") : operand->name;
}

bool operand_optional(const Signature& signature, Split split, int i) {
  int member = 0;
  const auto* operand = find_operand(signature, split, i, &member);
  return operand && operand->optional && !operand->variadic;
}

bool operand_stored(const Signature& signature, Split split, int i, DType dtype) {
  if (kind_of(dtype) != ElementKind::stored_real && kind_of(dtype) != ElementKind::stored_integer) return true;
  if (std::count(signature.dtypes.begin(), signature.dtypes.end(), dtype)) return true;
  int member = 0;
  const auto* operand = find_operand(signature, split, i, &member);
  if (dtype == DType::f8e4m3 || dtype == DType::f8e5m2) return operand && operand->float8;
  return dtype == DType::bf16 && operand && operand->bf16;
}

}  // namespace titan
