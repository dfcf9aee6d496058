// What the header computes, for test_cpp.py. Each line of the input and of the output is JSON.
//
//     vectors tokens MERGES.gz CONTEXT     [bytes of a caption in hexadecimal] -> ids, or an error's name
//     vectors noise                        [seed, dim] -> words of two blocks, and noise
//     vectors pictures BUNDLE DEVICE PRECISION    [prompt, seed] -> sentence vector, image, pixels

#include <cstdio>
#include <cstring>
#include <iostream>

#include "galip.hpp"

namespace {

template <class Value>
std::string hex_of(const Value* values, std::size_t count) {
    std::string text;
    std::array<char, 9> digits{};
    for (std::size_t i = 0; i < count; i++) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, &values[i], sizeof(Value));
        std::snprintf(digits.data(), digits.size(), "%0*x", static_cast<int>(2 * sizeof(Value)), bits);
        text += digits.data();
    }
    return text;
}

template <class Value>
std::string hex_of(const std::vector<Value>& values) {
    return hex_of(values.data(), values.size());
}

std::string from_hex(const std::string& digits) {
    std::string bytes;
    for (std::size_t i = 0; i < digits.size(); i += 2)
        bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
    return bytes;
}

/// Answer each line of the input; an error is answered with its name.
template <class Answer>
void answer_all(Answer answer) {
    for (std::string line; std::getline(std::cin, line);) {
        try {
            std::cout << answer(galip::json::parse(line)) << '\n';
        } catch (const galip::Error& error) {
            std::cout << galip::json{{"error", error.name}, {"message", error.what()}} << '\n';
        }
    }
}

galip::json answer_noise(const galip::json& question) {
    const std::uint64_t seed = std::stoull(question[0].get<std::string>());
    const auto first = galip::philox(0, seed), second = galip::philox(1, seed);
    return {hex_of(first.data(), 4) + hex_of(second.data(), 4), hex_of(galip::noise(seed, question[1]))};
}

galip::json answer_picture(galip::Model& model, const galip::json& question) {
    const std::string prompt = question[0];
    const std::uint64_t seed = std::stoull(question[1].get<std::string>());
    const std::vector<float> sentence = model.encode_text(prompt);
    const std::vector<float> image = model.decode(galip::noise(seed, model.bundle.noise_dim), sentence);
    return {hex_of(sentence), hex_of(image), hex_of(model.generate(prompt, seed).pixels)};
}

}  // namespace

int main(int, char** words) {
    const std::string what = words[1];
    if (what == "tokens") {
        std::ifstream file(words[2], std::ios::binary);
        const std::string merges((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
        const galip::Tokenizer tokenizer(galip::gunzip(merges), std::stoul(words[3]));
        answer_all([&](const galip::json& hex) { return galip::json(tokenizer.encode(from_hex(hex[0]))); });
    } else if (what == "noise") {
        answer_all(answer_noise);
    } else {
        galip::Model model(words[2], words[3], words[4]);
        answer_all([&](const galip::json& question) { return answer_picture(model, question); });
    }
}
