// galip_generate BUNDLE PROMPT SEED PICTURE.png: draw a picture with a bundle.

#include <charconv>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>

#include "galip.hpp"

namespace {

const char* const USAGE =
    "Usage: galip_generate BUNDLE PROMPT SEED PICTURE.png [--device NAME] [--precision NAME]\n"
    "\n"
    "  Draw a picture with a bundle, a folder that galip export wrote.\n"
    "\n"
    "  SEED         from 0 to 18446744073709551615; the same seed gives the same picture\n"
    "  --device     openvino, cpu (onnxruntime) or auto, the first that was built in  [default: auto]\n"
    "  --precision  fp32, w16a32 or auto  [default: auto]\n"
    "\n"
    "Exit codes: 0 done, 1 unexpected, 2 usage, 3 the picture is not finite, 4 a file is refused,\n"
    "5 the device is not available.";

struct Options {
    std::vector<std::string> positional;
    std::string device = "auto", precision = "auto";
};

Options parse(const std::vector<std::string>& words) {
    Options options;
    for (std::size_t i = 0; i < words.size(); i++) {
        const bool is_option = words[i] == "--device" || words[i] == "--precision";
        if (is_option && i + 1 == words.size()) throw galip::UsageError(words[i] + " needs a name");
        if (!is_option && words[i].substr(0, 2) == "--")
            throw galip::UsageError("there is no option " + galip::shortly(words[i]) + ": see --help");
        if (words[i] == "--device") {
            options.device = words[++i];
        } else if (words[i] == "--precision") {
            options.precision = words[++i];
        } else {
            options.positional.push_back(words[i]);
        }
    }
    if (options.positional.size() != 4)
        throw galip::UsageError("give a bundle, a prompt, a seed and the picture's file: see --help");
    return options;
}

std::uint64_t parse_seed(const std::string& text) {
    std::uint64_t seed = 0;
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, seed);
    if (text.empty() || rest != end || error != std::errc())
        throw galip::UsageError("a seed is a whole number from 0 to 18446744073709551615 (2^64 - 1), not " +
                                galip::shortly(text));
    return seed;
}

std::string big_endian(std::size_t value) {
    std::string bytes;
    for (int shift : {24, 16, 8, 0}) bytes += static_cast<char>(value >> shift & 0xFF);
    return bytes;
}

std::string chunk(const std::string& type, const std::string& data) {
    const std::string body = type + data;
    const auto crc = crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
    return big_endian(data.size()) + body + big_endian(crc);
}

std::string text_chunk(const std::string& keyword, const std::string& text) {
    return chunk("iTXt", keyword + std::string(5, '\0') + text);  // no compression, language or translation
}

/// Return a picture as the bytes of a PNG file that says how it was drawn.
std::string encode_png(const galip::Picture& picture, const std::map<std::string, std::string>& metadata) {
    std::string lines;
    for (std::size_t y = 0; y < picture.height; y++) {
        lines += '\0';  // no filter
        const auto start = picture.pixels.begin() + static_cast<std::ptrdiff_t>(3 * picture.width * y);
        lines.append(start, start + static_cast<std::ptrdiff_t>(3 * picture.width));
    }
    uLongf size = compressBound(lines.size());
    std::string compressed(size, '\0');
    auto* target = reinterpret_cast<Bytef*>(compressed.data());
    if (compress2(target, &size, reinterpret_cast<const Bytef*>(lines.data()), lines.size(), 9) != Z_OK)
        throw std::bad_alloc();
    compressed.resize(size);
    const std::string rgb8("\x08\x02\0\0\0", 5);
    const std::string size_of_picture = big_endian(picture.width) + big_endian(picture.height);
    std::string png = "\x89PNG\r\n\x1A\n" + chunk("IHDR", size_of_picture + rgb8);
    for (const auto& [keyword, text] : metadata) png += text_chunk(keyword, text);
    return png + chunk("IDAT", compressed) + chunk("IEND", "");
}

/// Write a file, whole or not at all.
void write_whole(const std::string& path, const std::string& bytes) {
    const std::string temporary = path + ".part";
    std::ofstream file(temporary, std::ios::binary);
    file << bytes;
    file.close();
    if (file && std::rename(temporary.c_str(), path.c_str()) == 0) return;
    const std::string reason = std::strerror(errno);
    std::remove(temporary.c_str());
    throw galip::UsageError(path + " cannot be written: " + reason);
}

/// Return a text without what could control a terminal.
std::string printable(std::string text) {
    for (char& byte : text) {
        if ((byte >= 0 && byte < 0x20 && byte != '\n') || byte == 0x7F) byte = '?';
    }
    return text;
}

void draw(const Options& options) {
    const std::string &prompt = options.positional[1], &path = options.positional[3];
    const std::uint64_t seed = parse_seed(options.positional[2]);
    if (path.size() < 5 || path.substr(path.size() - 4) != ".png")
        throw galip::UsageError("the picture's file has to end in .png, and it is " + galip::shortly(path));
    galip::Model model(options.positional[0], options.device, options.precision);
    const galip::Picture picture = model.generate(prompt, seed);
    const std::string digits = std::to_string(seed), digest = model.bundle.digest;
    write_whole(path, encode_png(picture, {{"prompt", prompt}, {"seed", digits}, {"bundle", digest}}));
    std::cout << path << ": seed " << digits << '\n';
}

}  // namespace

int main(int count, char** words) {
    try {
        const std::vector<std::string> arguments(words + 1, words + count);
        if (arguments == std::vector<std::string>{"--help"}) {
            std::cout << USAGE << '\n';
        } else {
            draw(parse(arguments));
        }
        return 0;
    } catch (const galip::Error& error) {
        std::cerr << error.name << ": " << printable(error.what()) << '\n';
        return error.exit_code;
    } catch (const std::exception& error) {
        std::cerr << "unexpected: " << printable(error.what()) << '\n';
        return 1;
    }
}
