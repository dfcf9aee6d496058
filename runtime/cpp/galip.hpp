// Pictures from a GALIP bundle, in C++17 and one header.
//
//     galip::Model model("demo/bundle");
//     galip::Picture picture = model.generate("a red apple, 3D style", 7);
//
//     prompt -> cleaned text -> ids -> text encoder -> sentence vector --+
//     seed -> Philox -> Box-Muller -> noise -----------------------------+-> generator -> image -> pixels
//
// docs/bundle.md specifies all steps; what is not implemented is refused, see README.md. Define
// GALIP_WITH_OPENVINO or GALIP_WITH_ONNXRUNTIME, or both. `is_suspicious` and `fix_line` follow ftfy 6.3.1,
// Copyright 2023 Robyn Speer, Apache License 2.0: see NOTICE.

#pragma once

#include <openssl/evp.h>
#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/regex.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#ifdef GALIP_WITH_OPENVINO
#include <openvino/frontend/manager.hpp>
#include <openvino/openvino.hpp>
#endif
#ifdef GALIP_WITH_ONNXRUNTIME
#include <onnxruntime_cxx_api.h>
#endif

namespace galip {

using nlohmann::json;
using Text = icu::UnicodeString;
using Floats = std::vector<float>;
using Ids = std::vector<std::int64_t>;
using std::map, std::string, std::vector;

// ---- errors: names and exit codes of the Python runtime ---------------------------------------------------
/// Base of all errors raised on purpose; its message is written for the user.
struct Error : std::runtime_error {
    const char* name;
    int exit_code;
    Error(const char* name, int exit_code, const string& text)
        : std::runtime_error(text), name(name), exit_code(exit_code) {}
};
/// An argument, value or prompt that cannot be used.
struct UsageError : Error { UsageError(const string& s) : Error("UsageError", 2, s) {} };
/// Numbers that are not finite.
struct QualityGateFailed : Error { QualityGateFailed(const string& s) : Error("QualityGateFailed", 3, s) {} };
/// A file that is missing, broken, altered, unsafe or of another kind.
struct FileRefused : Error { FileRefused(const string& s) : Error("FileRefused", 4, s) {} };
/// A device that is not available here, or that failed.
struct ProviderUnavailable : Error {
    ProviderUnavailable(const string& s) : Error("ProviderUnavailable", 5, s) {}
};

// ---- text -------------------------------------------------------------------------------------------------
/// Return the beginning of a text, quoted, in ASCII.
inline string shortly(const string& text, std::size_t limit = 80) {
    return json(text.substr(0, limit)).dump(-1, ' ', true, json::error_handler_t::replace);
}

inline void check_icu(UErrorCode status) {
    if (U_FAILURE(status)) throw ProviderUnavailable(string("ICU failed: ") + u_errorName(status));
}

/// A compiled regular expression.
class Pattern {
  public:
    explicit Pattern(const Text& source) {
        UErrorCode status = U_ZERO_ERROR;
        UParseError place{};
        pattern_.reset(icu::RegexPattern::compile(source, place, status));
        check_icu(status);
    }

    /// Call `use(match, start)` for each match until it returns false. Return whether it did.
    template <class Use>
    bool each(const Text& text, Use use) const {
        UErrorCode status = U_ZERO_ERROR;
        const std::unique_ptr<icu::RegexMatcher> matcher(pattern_->matcher(text, status));
        bool more = true;
        while (more && U_SUCCESS(status) && matcher->find(status)) {
            const int32_t start = matcher->start(status);
            more = use(Text(text, start, matcher->end(status) - start), start);
        }
        check_icu(status);
        return !more;
    }

    bool found(const Text& text) const { return each(text, [](const Text&, int32_t) { return false; }); }

    /// Return `text` with `change(match)` in place of each match.
    template <class Change>
    Text replace(const Text& text, Change change) const {
        Text result;
        int32_t end = 0;
        each(text, [&](const Text& match, int32_t start) {
            result.append(text, end, start - end).append(Text(change(match)));
            end = start + match.length();
            return true;
        });
        return result.append(text, end, text.length() - end);
    }

  private:
    std::shared_ptr<icu::RegexPattern> pattern_;
};

// ---- bundle: a file is verified before anything parses it -------------------------------------------------
/// Return the SHA-256 of bytes in hexadecimal digits.
inline string sha256(const string& bytes) {
    std::array<unsigned char, 32> hash{};
    if (!EVP_Digest(bytes.data(), bytes.size(), hash.data(), nullptr, EVP_sha256(), nullptr))
        throw ProviderUnavailable("OpenSSL does not compute SHA-256");
    string digits;
    for (unsigned char byte : hash) digits += {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
    return digits;
}

/// Return what a gzip file holds, at most 64 MiB. Throws FileRefused.
inline string gunzip(string bytes) {
    z_stream stream{};
    if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) throw std::bad_alloc();
    const std::unique_ptr<z_stream, int (*)(z_stream*)> owner(&stream, inflateEnd);
    string text(std::size_t{64} << 20, '\0');
    stream.next_in = reinterpret_cast<Bytef*>(bytes.data());
    stream.avail_in = static_cast<uInt>(bytes.size());
    stream.next_out = reinterpret_cast<Bytef*>(text.data());
    stream.avail_out = static_cast<uInt>(text.size());
    if (inflate(&stream, Z_FINISH) != Z_STREAM_END)
        throw FileRefused("the tokenizer's vocabulary is not gzipped text of at most 64 MiB");
    return text.substr(0, stream.total_out);
}

/// A bundle's folder.
class Bundle {
  public:
    /// Read the manifest. Throws FileRefused, also if any byte of it was changed.
    explicit Bundle(const std::filesystem::path& folder) : folder_(folder) {
        try {
            parse(read_file("manifest.json", 1 << 20));
        } catch (const json::exception& error) {
            refuse("manifest.json", "is not valid JSON, or lacks a field: " + shortly(error.what(), 200));
        }
    }

    /// Return the bytes of a listed file. Throws FileRefused unless they are what the manifest lists.
    string read(const string& name) const {
        const auto& [hash, size] = files_.at(name);
        const string bytes = read_file(name, size);
        if (bytes.size() != size || sha256(bytes) != hash)
            refuse(name, "is not the file that the manifest lists, of " + std::to_string(size) +
                             " bytes and sha256 " + hash + ": it was cut short or altered");
        return bytes;
    }

    std::size_t image_height, image_width, noise_dim, sentence_dim, context_length;
    string digest, tokenizer;
    map<string, map<string, string>> graphs;  // graph -> precision -> file

  private:
    [[noreturn]] void refuse(const string& name, const string& reason) const {
        throw FileRefused((folder_ / name).string() + " " + reason +
                          ". Copy the bundle again from where it came, or export it again with this version");
    }

    /// Return the bytes of a regular file, the first `limit` + 1 at most. Throws FileRefused.
    string read_file(const string& name, std::uint64_t limit) const {
        namespace fs = std::filesystem;
        std::error_code error;
        const fs::path target = fs::canonical(folder_ / name, error);
        const fs::path inside = fs::relative(target, folder_, error);
        if (!fs::is_regular_file(target, error)) refuse(name, "is missing or not a regular file");
        if (inside.empty() || *inside.begin() == "..") refuse(name, "is a link out of the bundle");
        std::ifstream file(target, std::ios::binary);
        string bytes(std::min<std::uint64_t>(fs::file_size(target, error), limit + 1), '\0');
        if (error || !file.read(bytes.data(), std::streamsize(bytes.size()))) refuse(name, "cannot be read");
        return bytes;
    }

    void parse(const string& text) {
        const auto check = [this](bool holds, const string& reason) {
            if (!holds) refuse("manifest.json", reason);
        };
        const json manifest = json::parse(text, [&](int depth, json::parse_event_t, const json&) {
            check(depth < 100, "is nested too deeply");  // for recursive functions
            return true;
        });
        check(manifest.is_object() && manifest.value("format", "") == "galip-bundle", "is no bundle's");
        const json& version = manifest.at("format_version");
        check(version == 1, "has format version " + version.dump() + ", and this program reads version 1");
        digest = manifest.at("digest");
        const std::size_t line = text.find("  \"digest\": \"" + digest + "\",\n");  // which it leaves out
        check(digest.size() == 64 && line != string::npos, "has no digest: it was altered");
        check(sha256(string(text).erase(line, 80)) == digest, "does not match its digest: it was altered");
        const string implemented = "2844d689896cc15272f9a9779a3c09ae4b3f785c44f53e4779cabe15ec615da0";
        check(sha256(manifest.at("noise").dump()) == implemented, "has a noise that is unknown here");
        const auto whole = [&](const json& value, std::uint64_t least, std::uint64_t most) {
            const bool fits = value.is_number_unsigned() && value >= least && value <= most;
            check(fits, "has the size " + value.dump() + ", which is no whole number in the range allowed");
            return value.get<std::uint64_t>();
        };
        const json& dimensions = manifest.at("dimensions");
        image_height = whole(dimensions.at("image_height"), 1, 1 << 16);
        image_width = whole(dimensions.at("image_width"), 1, 1 << 16);
        noise_dim = whole(dimensions.at("noise_dim"), 1, 1 << 16);
        sentence_dim = whole(dimensions.at("sentence_dim"), 1, 1 << 16);
        context_length = whole(dimensions.at("context_length"), 3, 1 << 16);
        static const Text part = u"[0-9A-Za-z_][0-9A-Za-z_.+-]*";
        static const Pattern safe(u"\\A(?!manifest\\.json\\z)" + part + u"(/" + part + u")*\\z");
        for (const auto& [name, entry] : manifest.at("files").items()) {
            check(name.size() <= 200 && safe.found(Text::fromUTF8(name)),
                  "lists the file " + shortly(name) + ", whose path could lead out of the folder or hide");
            files_[name] = {entry.at("sha256"), whole(entry.at("size"), 0, std::uint64_t{1} << 33)};
        }
        const auto listed = [&](const string& name) {
            check(files_.count(name), "does not list the file " + shortly(name));
            return name;
        };
        tokenizer = listed(manifest.at("tokenizer").at("file"));
        for (const char* graph : {"text_encoder", "generator"})
            for (const auto& [precision, spec] : manifest.at("graphs").at(graph).items())
                graphs[graph][precision] = listed(spec.at("file"));
    }

    std::filesystem::path folder_;
    map<string, std::pair<string, std::uint64_t>> files_;  // name -> sha256, size
};

// ---- cleaning: ftfy's fix_text, white space, lower case ---------------------------------------------------
/// Change each part of `text` that Unicode 14 has: for other characters, Python has no tables.
template <class Change>
Text each_known(const Text& text, Change change) {
    static const Pattern known(u"[[:age=14.0:]]+");
    return known.replace(text, change);
}

inline Text normalized(const Text& text, const char* form) {
    UErrorCode status = U_ZERO_ERROR;
    const auto* normalizer = icu::Normalizer2::getInstance(nullptr, form, UNORM2_COMPOSE, status);
    check_icu(status);
    return normalizer->normalize(text, status);
}

/// Return whether ftfy would take a line for text that was read in the wrong encoding.
inline bool is_suspicious(const Text& line) {
    static const map<char16_t, Text> classes = {
        {u'B', u"¦¤¨¬¯¸ƒˆˇ˘˛˜†‡‰⌐◊\uFFFDªº"}, {u'C', u"¢£¥₧€"}, {u'E', u"®»˝”›™"}, {u'P', u"¶§"},
        {u'G', u"α-ωάέήίΰа-џÞΑ-ΩΆΈΉΊΌΎΏΪΫЁ-Я"}, {u'H', u"α-ωάέήίΰа-џ"}, {u'K', u"Ò-ÖÙ-Üò-öø-üŐŌŪŲ°"},
        {u'L', u"ßà-ñăąāćčďđęěēėğģįīķĺľłļœŕśşšťüźżžґﬁﬂ"}, {u'N', u"²³¹±¼½¾×µ÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№"},
        {u'S', u"¡«¿©΄΅‘‚“„•‹\uF8FF"}, {u'U', u"À-ÑØÜÝĂĀĄĆČĎĐĘĚĒĖĞĢİĪĶĹĽŁĻŃŇŅŒŘŚŞŠŢŤŮŰŸŹŻŽҐ"},
        {u'X', u"│┌┐┘├┤┬┼═-╬▀▄█▌▐░▒▓"}, {u'Y', u"\u00A0\u00AD·´–—―…’"}, {u'Z', u"\\s\\p{Z}\x1C-\x1F"},
        {u'1', u"\x80-\x9F"}};
    static const Text source =  // %B stands for class B
        u"[%1]|[%B%L%U%X%S%E%C%N%P][%B]|[a-zA-Z][%G][%B]|[%B][%L%U%X%S%E%C%N%P]|[%L%H%X%E%C%N][%U]|"
        u"[%X%E%C%N][%L]|[%L%X%E][%C]|[%Z][%U][%C]|[%U%X][%N%P]|[%L%U%X%C%E][%S][%N]|[%L%U%C%N%X%P][%E][%S]|"
        u"[%C%N%X][%S]|[a-z][%U][%S%C]|[%X][%K]|[%L%U%C%N%S%E%P][%X]|[%X][%E]|[%L%U][%S%E][\\w\\p{N}]|"
        u"[Œœ][^A-Za-z]|[%U]°|[ÂÃÎÐ][€œŠš¢£Ÿž\u00A0\u00AD®©°·»%S%E–—´]|×[²³]|"
        u"[ØÙ][%Y%C%B%N%SŸŠ®°µ»][ØÙ][%Y%C%B%N%SŸŠ®°µ»]|à[²µ¹¼½¾]|√[±∂†≠®™´≤≥¥µø]|≈[°¢]|"
        u"‚Ä[ìîïòôúùû†°¢π]|‚[âó][àä°ê]|вЂ|[ВГРС][%1%B%S%E%C°µ][ВГРС]|ГўВЂВ|Ã[\u00A0¡]|[a-z][%Z]?[ÃÂ] |"
        u"^[ÃÂ] |[a-z.,?!%E]Â[ %S%E]|β€[™\u00A0Ά\u00AD®°]|[ΒΓΞΟ][%1%B%S%E%C°][ΒΓΞΟ]|ā€";
    const auto expand = [](const Text& name) { return classes.at(name[1]); };
    static const Pattern bad(Pattern(u"%[A-Z1]").replace(source, expand));
    return bad.found(line);
}

/// Repair a line as ftfy does. Throws UsageError where ftfy or HTML would read other characters.
inline Text fix_line(Text line) {
    // numbers, names that end in a semicolon, and those that HTML knows without one
    static const Pattern references(u"&(#[0-9xX]|[0-9A-Za-z]+;|AMP|COPY|ETH|GT|LT|QUOT|REG|THORN|AElig|"
        u"Ccedil|Oslash|[AEIOUYaeiouy]acute|[AEIOUaeiou](circ|grave|uml)|[ANOano]tilde|[Aa]ring|aelig|"
        u"ac(irc|ute)|amp|brvbar|c(cedil|edil|ent|opy|urren)|d(eg|ivide)|eth|frac(12|14|34)|gt|i(excl|quest)|"
        u"l(aquo|t)|m(acr|icro|iddot)|n(bsp|ot)|o(rd[fm]|slash)|p(ara|lusmn|ound)|quot|r(aquo|eg)|"
        u"s(ect|hy|up[123]|zlig)|t(horn|imes)|uml|y(en|uml))");
    static const Pattern not_ascii(u"[^\\x00-\\x7F]"), widths(  // and ligatures
        u"[\\u0132\\u0133\\u0149\\u01C4-\\u01CC\\u01F1-\\u01F3\\u3000\\uFB00-\\uFB04\\uFB06\\uFF01-\\uFFEF]");
    static const vector<std::pair<Pattern, Text>> replacements = {
        {Pattern(u"\uFB05"), u"ſt"}, {Pattern(u"[\\u201C-\\u201F]"), u"\""},
        {Pattern(u"[\\u02BC\\u2018-\\u201B]"), u"'"}, {Pattern(u"\\r\\n|[\\r\\u2028\\u2029]"), u"\n"},
        {Pattern(u"\\x1B\\[[[\\p{Nd}&[:age=14.0:]];]*[a-zA-Z]"), u""},  // a terminal's escape
        {Pattern(u"[\\x00-\\x08\\x0B\\x0E-\\x1F\\x7F\\u206A-\\u206F\\uFEFF\\uFFF9-\\uFFFC]"), u""}};
    for (Text before; before != line;) {
        before = line;
        if (references.found(line))
            throw UsageError("the prompt has an HTML character reference, such as \"&eacute;\" or \"&lt\", "
                             "which is not read here: write the character itself, and a space after \"&\"");
        if (not_ascii.found(line) && is_suspicious(line))
            throw UsageError("the prompt looks like text that was read in the wrong encoding, or has control "
                             "characters from U+0080 on, which this program does not repair: correct it");
        line = widths.replace(line, [](const Text& part) { return normalized(part, "nfkc"); });
        for (const auto& [pattern, replacement] : replacements)
            line = pattern.replace(line, [&text = replacement](const Text&) { return text; });
        line = each_known(line, [](const Text& part) { return normalized(part, "nfc"); });
    }
    return line;
}

/// Return the text that the tokenizer splits. Throws UsageError.
inline Text clean(const string& prompt) {
    static const Pattern lines(u"[^\\n]*\\n|[^\\n]+"), unknown(u"[\\p{Cn}-[:Noncharacter_Code_Point:]]");
    static const Pattern spaces(u"[\\t-\\r\\x1C-\\x20\\x85\\p{Z}]+");
    Text text = Text::fromUTF8(prompt);
    if (string valid; text.toUTF8String(valid) != prompt) throw UsageError("the prompt is not valid UTF-8");
    if (text.countChar32() > 100'000) throw UsageError("the prompt has more than 100,000 characters");
    text = lines.replace(text, fix_line);
    text = spaces.replace(text, [](const Text&) { return u" "; }).trim();
    if (U_ICU_VERSION_MAJOR_NUM < 78 && unknown.found(text))  // 78 has Unicode 17
        throw UsageError("the prompt has a character that this program's ICU, of Unicode " U_UNICODE_VERSION
                         ", does not know: leave it out, or use a newer ICU");
    return each_known(text, [](Text part) { return part.toLower(icu::Locale::getRoot()); });
}

// ---- tokenizer: CLIP's byte-pair encoding -----------------------------------------------------------------
/// Byte-pair encoding. Ids: 256 bytes, the same at the end of a word, one a merge, start, end.
class Tokenizer {
  public:
    /// `merges`: a merge a line, two symbols with a space between. Throws FileRefused for a broken list.
    Tokenizer(const string& merges, std::size_t context_length) : context_length_(context_length) {
        map<string, std::int64_t> ids;
        const auto add = [&](const string& symbol) { return ids.emplace(symbol, ids.size()).second; };
        vector<string> symbols;
        for (bool printable : {true, false}) {  // in Latin-1: these stand for themselves and come first
            for (int byte = 0; byte < 256; byte++) {
                if ((byte > 0x20 && byte != 0xAD && (byte < 0x7F || byte > 0xA0)) != printable) continue;
                const int character = printable ? byte : 0x100 - 188 + static_cast<int>(symbols.size());
                byte_ids_[static_cast<std::size_t>(byte)] = static_cast<std::int64_t>(symbols.size());
                Text(UChar32{character}).toUTF8String(symbols.emplace_back());
            }
        }
        for (const char* end : {"", "</w>"})
            for (const string& symbol : symbols) add(symbol + end);
        std::istringstream lines(merges);
        for (string line, first, second, more; std::getline(lines, line);) {
            std::istringstream words(line);
            const bool are_two = words >> first >> second && !(words >> more);
            if (!are_two || !ids.count(first) || !ids.count(second) || !add(first + second))
                throw FileRefused("the tokenizer's vocabulary is broken: " + shortly(line) + " is no merge");
            merges_[{ids[first], ids[second]}] = ids[first + second];
        }
        start_ = static_cast<std::int64_t>(ids.size());
    }

    /// Return start, caption, end: at most `context_length` ids, the caption cut to fit. Throws UsageError.
    Ids encode(const string& prompt) const {
        // "ſ" is an "s" where case is ignored; CLIP's tokenizer skips U+0345
        static const Text letter = u"[\\p{L}&[:age=17.0:]]", number = u"[\\p{N}&[:age=17.0:]]";
        static const Text some = u"<[sſ]tart_of_text>|<end_of_text>|'[sſ]|'t|'re|'ve|'m|'ll|'d|";
        static const Pattern words(some + letter + u"+|" + number + u"|[^ \\u0345" + letter + number + u"]+");
        Ids ids{start_};
        words.each(clean(prompt), [&](const Text& match, int32_t) {
            string word;
            const Ids part = encode_word(match.toUTF8String(word));
            ids.insert(ids.end(), part.begin(), part.end());
            return ids.size() < context_length_ - 1;
        });
        ids.resize(std::min(ids.size(), context_length_ - 1));
        ids.push_back(start_ + 1);
        return ids;
    }

  private:
    /// Merge the pair that is first in the list, wherever it is, until none is left.
    Ids encode_word(const string& word) const {
        if (word == "<start_of_text>" || word == "<end_of_text>") return {start_ + (word[1] == 'e')};
        constexpr std::int64_t none = INT64_MAX;
        Ids ids;
        for (char byte : word) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
        ids.back() += 256;
        const auto merge_at = [&](std::size_t i) {
            const auto found = i + 1 < ids.size() ? merges_.find({ids[i], ids[i + 1]}) : merges_.end();
            return found == merges_.end() ? none : found->second;
        };
        for (;;) {
            std::int64_t first = none;
            for (std::size_t i = 0; i < ids.size(); i++) first = std::min(first, merge_at(i));
            if (first == none) return ids;
            Ids merged;
            for (std::size_t i = 0; i < ids.size(); i += merge_at(i) == first ? 2 : 1)
                merged.push_back(merge_at(i) == first ? first : ids[i]);
            ids = merged;
        }
    }

    std::size_t context_length_;
    std::int64_t start_;
    std::array<std::int64_t, 256> byte_ids_{};
    map<std::pair<std::int64_t, std::int64_t>, std::int64_t> merges_;
};

// ---- noise and pixels -------------------------------------------------------------------------------------
/// Compute Philox 4x32-10 (Salmon et al., SC 2011): the four words of a block.
inline std::array<std::uint32_t, 4> philox(std::uint64_t block, std::uint64_t seed) {
    const auto low = [](std::uint64_t value) { return static_cast<std::uint32_t>(value); };
    std::array<std::uint32_t, 4> c{low(block), low(block >> 32), 0, 0};
    std::uint32_t k0 = low(seed), k1 = low(seed >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
        const std::uint64_t a = std::uint64_t{0xD2511F53} * c[0], b = std::uint64_t{0xCD9E8D57} * c[2];
        c = {low(b >> 32) ^ c[1] ^ k0, low(b), low(a >> 32) ^ c[3] ^ k1, low(a)};
    }
    return c;
}

/// Return `dim` standard normal numbers, which depend on the seed alone.
inline Floats noise(std::uint64_t seed, std::size_t dim) {
    Floats row;
    for (std::uint64_t block = 0; row.size() < dim; block++) {
        const std::array<std::uint32_t, 4> words = philox(block, seed);
        for (std::size_t i : {0, 2}) {  // Box-Muller in float64
            const double radius = std::sqrt(-2 * std::log((words[i] + 0.5) / 4294967296.0));
            const double angle = 6.283185307179586 * ((words[i + 1] + 0.5) / 4294967296.0);
            for (double value : {std::cos(angle), std::sin(angle)}) row.push_back(float(radius * value));
        }
    }
    row.resize(dim);
    return row;
}

struct Picture {
    std::size_t width, height;
    vector<std::uint8_t> pixels;  // RGB, row by row
};

/// Convert an image (3, H, W): [-1, 1] becomes 0 to 255, in float32, halves rounded to even numbers.
inline Picture to_picture(const Floats& image, std::size_t width, std::size_t height) {
    Picture picture{width, height, vector<std::uint8_t>(image.size())};
    const std::size_t size = width * height;
    for (std::size_t i = 0; i < image.size(); i++) {
        const float value = (std::clamp(image[i], -1.0f, 1.0f) + 1.0f) * 127.5f;
        picture.pixels[i % size * 3 + i / size] = static_cast<std::uint8_t>(std::nearbyint(value));
    }
    return picture;
}

// ---- graphs: float32 on the CPU ---------------------------------------------------------------------------
/// An input with one row, (1, n).
struct Input {
    const char* name;
    std::variant<Ids, Floats> row;
};

/// A graph with one output. It throws what its library throws.
struct Graph {
    virtual ~Graph() = default;
    virtual Floats run(const vector<Input>& inputs, const char* output) = 0;
};

#ifdef GALIP_WITH_OPENVINO
struct OpenvinoGraph : Graph {
    explicit OpenvinoGraph(const string& onnx) {
        static ov::frontend::FrontEndManager frontends;
        static ov::Core& core = *new ov::Core;  // never freed: on CPUs with AMX, the next signal would crash
        std::istringstream stream(onnx);
        const auto frontend = frontends.load_by_framework("onnx");
        const auto model = frontend->convert(frontend->load(static_cast<std::istream*>(&stream)));
        request = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32))
                      .create_infer_request();
    }

    Floats run(const vector<Input>& inputs, const char* output) override {
        for (const Input& input : inputs) {
            const auto set = [&](const auto& row) {
                using Value = typename std::decay_t<decltype(row)>::value_type;
                ov::Tensor tensor(ov::element::from<Value>(), {1, row.size()});
                std::copy(row.begin(), row.end(), tensor.data<Value>());
                request.set_tensor(input.name, tensor);
            };
            std::visit(set, input.row);
        }
        request.infer();
        const ov::Tensor result = request.get_tensor(output);
        return {result.data<const float>(), result.data<const float>() + result.get_size()};
    }

    ov::InferRequest request;
};
#endif

#ifdef GALIP_WITH_ONNXRUNTIME
struct OnnxruntimeGraph : Graph {
    explicit OnnxruntimeGraph(const string& onnx) {
        static Ort::Env environment(ORT_LOGGING_LEVEL_FATAL, "galip");  // errors are thrown
        environment.DisableTelemetryEvents();
        session = Ort::Session(environment, onnx.data(), onnx.size(), Ort::SessionOptions());
    }

    Floats run(const vector<Input>& inputs, const char* output) override {
        vector<const char*> names;
        vector<Ort::Value> tensors;
        for (const Input& input : inputs) {
            const auto add = [&](const auto& row) {
                using Value = typename std::decay_t<decltype(row)>::value_type;
                const std::array<std::int64_t, 2> shape{1, static_cast<std::int64_t>(row.size())};
                const Ort::AllocatorWithDefaultOptions allocator;
                tensors.push_back(Ort::Value::CreateTensor<Value>(allocator, shape.data(), shape.size()));
                std::copy(row.begin(), row.end(), tensors.back().template GetTensorMutableData<Value>());
            };
            std::visit(add, input.row);
            names.push_back(input.name);
        }
        const auto results = session.Run({}, names.data(), tensors.data(), tensors.size(), &output, 1);
        const float* data = results[0].GetTensorData<float>();
        return {data, data + results[0].GetTensorTypeAndShapeInfo().GetElementCount()};
    }

    Ort::Session session{nullptr};
};
#endif

// ---- model ------------------------------------------------------------------------------------------------
/// A bundle's model on the CPU, for one thread at a time.
class Model {
  public:
    /// `device`: "openvino", "cpu" (onnxruntime), or "auto" for the first that was built in.
    /// `precision`: "fp32", "w16a32" or "auto". Throws FileRefused, UsageError, ProviderUnavailable.
    explicit Model(const std::filesystem::path& folder, const string& device = "auto",
                   const string& precision = "auto")
        : bundle(folder), tokenizer(gunzip(bundle.read(bundle.tokenizer)), bundle.context_length) {
        const auto &encoders = bundle.graphs.at("text_encoder"), &generators = bundle.graphs.at("generator");
        const string chosen = precision != "auto" ? precision : generators.count("fp32") ? "fp32" : "w16a32";
        text_encoder_ = open(encoders, device, encoders.count(chosen) ? chosen : "fp32");
        generator_ = open(generators, device, chosen);
    }

    /// Return a prompt's sentence vector. Throws UsageError, ProviderUnavailable, QualityGateFailed.
    Floats encode_text(const string& prompt) {
        Ids ids = tokenizer.encode(prompt);
        ids.resize(std::min((ids.size() + 7) / 8 * 8, bundle.context_length));  // padded with zeros
        return run(*text_encoder_, {{"tokens", ids}}, "sentence", bundle.sentence_dim);
    }

    /// Return an image (3, H, W), nominally in [-1, 1]. Throws ProviderUnavailable, QualityGateFailed.
    Floats decode(const Floats& noise, const Floats& sentence) {
        return run(*generator_, {{"noise", noise}, {"sentence", sentence}}, "image",
                   3 * bundle.image_height * bundle.image_width);
    }

    /// Return the picture of a prompt and a seed. Throws as `encode_text` and `decode`.
    Picture generate(const string& prompt, std::uint64_t seed) {
        const Floats image = decode(noise(seed, bundle.noise_dim), encode_text(prompt));
        return to_picture(image, bundle.image_width, bundle.image_height);
    }

    const Bundle bundle;
    const Tokenizer tokenizer;

  private:
    std::unique_ptr<Graph> open(const map<string, string>& files, const string& device,
                                const string& precision) const {
        if ((precision != "fp32" && precision != "w16a32") || !files.count(precision))
            throw UsageError("there is no precision " + shortly(precision) +
                             ": choose fp32 or w16a32, whichever the bundle has, or export it with both");
        const string onnx = bundle.read(files.at(precision));
        try {
#ifdef GALIP_WITH_OPENVINO
            if (device == "openvino" || device == "auto") return std::make_unique<OpenvinoGraph>(onnx);
#endif
#ifdef GALIP_WITH_ONNXRUNTIME
            if (device == "cpu" || device == "auto") return std::make_unique<OnnxruntimeGraph>(onnx);
#endif
        } catch (const std::exception& error) {
            throw ProviderUnavailable(files.at(precision) + " cannot be loaded: " + error.what());
        }
        if (device == "openvino" || device == "cpu")
            throw ProviderUnavailable("this program was built without " + device + ": see its README.md");
        throw UsageError("there is no device " + shortly(device) + ": choose openvino, cpu or auto");
    }

    static Floats run(Graph& graph, const vector<Input>& inputs, const string& output,
                                  std::size_t size) {
        Floats result;
        try {
            result = graph.run(inputs, output.c_str());
        } catch (const std::exception& error) {
            throw ProviderUnavailable("the device failed to compute the " + output + ": " + error.what());
        }
        if (result.size() != size) throw FileRefused("the " + output + " has not the manifest's size");
        if (!std::all_of(result.begin(), result.end(), [](float value) { return std::isfinite(value); }))
            throw QualityGateFailed("the " + output + " is not finite: use fp32, or export the bundle again");
        return result;
    }

    std::unique_ptr<Graph> text_encoder_, generator_;
};

}  // namespace galip
