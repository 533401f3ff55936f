// Layout, little-endian. Header: magic, page bytes, model digest, checksum. Record: magic, stamp, key, parent, the
// page's checksum, and a checksum over the last three and the slot's number. Only a stamp may be rewritten in place; it
// decides what is evicted first and nothing else.
#include "disk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "checksum.h"

namespace sparrow {
namespace {

constexpr uint64_t kHeaderMagic = 0x3130564b57525053, kRecordMagic = 0x4547415057525053;
constexpr uint64_t kStampMax = uint64_t{1} << 62;  // beyond: a damaged stamp

struct Header {
  uint64_t magic, page_bytes;
  Digest model;
  uint64_t sum;
  uint8_t room[72];
};

struct Record {
  uint64_t magic, stamp;
  PageKey key, parent;
  uint64_t page_sum, slot, sum;
  uint8_t room[24];
};
static_assert(sizeof(Header) == 128 && sizeof(Record) == 128);

constexpr uint64_t kLeftFree = uint64_t{64} << 20;
constexpr int64_t kHeaderBytes = sizeof(Header), kRecordBytes = sizeof(Record);

uint64_t sum_of(const Header& h, uint64_t seed) {
  return checksum(&h, offsetof(Header, sum), seed);
}

uint64_t sum_of(const Record& r, uint64_t seed) {
  return checksum(&r.key, offsetof(Record, sum) - offsetof(Record, key), seed);
}

off_t record_at(int64_t slot) {
  return kHeaderBytes + slot * kRecordBytes;
}

bool write_all(int file, const void* data, size_t size, off_t at) {
  const uint8_t* from = static_cast<const uint8_t*>(data);
  while (size > 0) {
    const ssize_t n = pwrite(file, from, size, at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    from += n, at += n, size -= static_cast<size_t>(n);
  }
  return true;
}

bool read_all(int file, void* data, size_t size, off_t at) {
  uint8_t* to = static_cast<uint8_t*>(data);
  while (size > 0) {
    const ssize_t n = pread(file, to, size, at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    to += n, at += n, size -= static_cast<size_t>(n);
  }
  return true;
}

Status refused(const std::string& dir, const std::string& what) {
  return error(Code::kBadArgument, "cacheDir: " + dir + ": " + what);
}

bool make_folders(const std::string& dir) {
  for (size_t end = dir.find('/', 1); end != std::string::npos; end = dir.find('/', end + 1))
    mkdir(dir.substr(0, end).c_str(), 0700);
  return mkdir(dir.c_str(), 0700) == 0 || errno == EEXIST;
}

FileHandle open_file(const std::string& path) {
  return FileHandle(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
}

bool cut(int file, int64_t bytes) {
  struct stat info;
  return fstat(file, &info) == 0 && (info.st_size <= bytes || ftruncate(file, bytes) == 0);
}

}  // namespace

FileHandle::~FileHandle() {
  if (descriptor_ >= 0) close(descriptor_);
}

Result<DiskFile> DiskFile::open(const DiskOptions& options) {
  DiskFile file;
  if (const Status status = file.start(options); !status.ok()) return status;
  return file;
}

Status DiskFile::start(const DiskOptions& options) {
  const std::string& dir = options.dir;
  page_bytes_ = options.page_bytes;
  slots_ = (options.bytes - kHeaderBytes) / (page_bytes_ + kRecordBytes);
  if (slots_ < 1) return error(Code::kBadArgument, "cacheBytes: less than a page");
  if (!make_folders(dir)) return refused(dir, std::strerror(errno));
  lock_ = open_file(dir + "/lock");
  if (lock_.get() < 0) return refused(dir, std::strerror(errno));
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) return refused(dir, "another process uses it");
  index_ = open_file(dir + "/index");
  pages_ = open_file(dir + "/pages");
  if (index_.get() < 0 || pages_.get() < 0) return refused(dir, std::strerror(errno));
  std::memcpy(&seed_, options.model.data(), sizeof seed_);

  Header wanted{kHeaderMagic, static_cast<uint64_t>(page_bytes_), options.model, 0, {}};
  wanted.sum = sum_of(wanted, seed_);
  Header got{};
  const bool ours = read_all(index_.get(), &got, sizeof got, 0) && std::memcmp(&got, &wanted, sizeof got) == 0;
  const bool sized =
      cut(index_.get(), ours ? record_at(slots_) : 0) && cut(pages_.get(), ours ? slots_ * page_bytes_ : 0);
  if (!sized || (!ours && !write_all(index_.get(), &wanted, sizeof wanted, 0)))
    return refused(dir, std::strerror(errno));
  return ok_status();
}

bool DiskFile::may_grow() const {
  struct statvfs disk;
  return fstatvfs(pages_.get(), &disk) != 0 ||
         uint64_t{disk.f_bavail} * disk.f_frsize >= kLeftFree + static_cast<uint64_t>(page_bytes_);
}

int64_t DiskFile::scan(const std::function<void(const Found&)>& found) const {
  constexpr int64_t kAtOnce = 1024;
  const Record none{};
  std::vector<Record> records(kAtOnce);
  int64_t damaged = 0;
  for (int64_t first = 0; first < slots_; first += kAtOnce) {
    const ssize_t n = pread(index_.get(), records.data(), kAtOnce * kRecordBytes, record_at(first));
    if (n < kRecordBytes) break;
    for (int64_t i = 0; i < std::min(n / kRecordBytes, slots_ - first); i++) {
      const Record& r = records[static_cast<size_t>(i)];
      if (std::memcmp(&r, &none, sizeof r) == 0) continue;
      if (r.magic != kRecordMagic || r.slot != static_cast<uint64_t>(first + i) || r.sum != sum_of(r, seed_))
        damaged++;
      else
        found({first + i, r.key, r.parent, r.stamp < kStampMax ? r.stamp : 0});
    }
  }
  return damaged;
}

/// The old record goes before its page does, the new one comes after: a process killed in between leaves an empty slot.
/// A machine that fails may keep any part of it, which the checksums tell.
bool DiskFile::write(const Found& at, const uint8_t* page) {
  clear(at.slot);
  const size_t size = static_cast<size_t>(page_bytes_);
  Record r{
      kRecordMagic, at.stamp, at.key, at.parent, checksum(page, size, seed_), static_cast<uint64_t>(at.slot), 0, {}};
  r.sum = sum_of(r, seed_);
  if (write_all(pages_.get(), page, size, at.slot * page_bytes_) &&
      write_all(index_.get(), &r, sizeof r, record_at(at.slot)))
    return true;
  clear(at.slot);
  return false;
}

bool DiskFile::read(int64_t slot, const PageKey& key, uint8_t* page) const {
  Record r;
  const size_t size = static_cast<size_t>(page_bytes_);
  return read_all(index_.get(), &r, sizeof r, record_at(slot)) && r.magic == kRecordMagic &&
         r.slot == static_cast<uint64_t>(slot) && r.key == key && r.sum == sum_of(r, seed_) &&
         read_all(pages_.get(), page, size, slot * page_bytes_) && checksum(page, size, seed_) == r.page_sum;
}

void DiskFile::stamp(int64_t slot, uint64_t stamp) {
  write_all(index_.get(), &stamp, sizeof stamp, record_at(slot) + static_cast<off_t>(offsetof(Record, stamp)));
}

void DiskFile::clear(int64_t slot) {
  const Record none{};
  write_all(index_.get(), &none, sizeof none, record_at(slot));
}

}  // namespace sparrow
