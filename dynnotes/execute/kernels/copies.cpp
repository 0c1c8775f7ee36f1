#include <cstdint>
#include <cstring>

// A number that most changes of these bytes change: of 32 words spread over them. For noticing, not for proof.
extern "C" int64_t dyn_sample(const void* from, int64_t bytes) {
    const char* at = static_cast<const char*>(from);
    uint64_t hash = uint64_t(bytes);
    for (int64_t i = 0; i < 32 && bytes >= 8; i++) {
        uint64_t word;
        std::memcpy(&word, at + (bytes - 8) * i / 31, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    return int64_t(hash);
}
