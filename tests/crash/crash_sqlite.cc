// sqlite with its two journals, and how each recovers.
#include <cstring>
#include <memory>
#include <random>

#include "common/checksum.h"
#include "crash/crash_program.h"

namespace ourfs::crash {

namespace {

constexpr uint64_t kDbPage = 4096, kDbPages = 7;
constexpr char kDb[] = "db", kJournal[] = "db-journal", kWal[] = "db-wal";

using Pages = std::map<uint64_t, std::string>;

// What the database was after each commit, and when that was asked for and answered.
struct Commits {
  struct One {
    Span span;
    Pages pages;
  };
  std::vector<One> all;

  std::string judge(const Pages& found, uint64_t point) const {
    size_t least = 0, most = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i].span.end <= point) least = i;
      if (all[i].span.begin < point) most = i;
    }
    for (size_t i = least; i <= most; ++i)
      if (all[i].pages == found) return "";
    return "the database is none of those after commits " + std::to_string(least) + " to " +
           std::to_string(most);
  }
};

std::string pageOf(uint64_t version, uint64_t number) {
  std::string page(kDbPage, '\0');
  constexpr uint64_t kFile = 1 << 20;  // no file of the model
  fillBytes(std::as_writable_bytes(std::span(page)), kFile, version, number * kDbPage);
  return page;
}

template <typename T>
void putNumber(std::string& text, T value) {
  text.append(reinterpret_cast<const char*>(&value), sizeof value);
}
template <typename T>
T numberAt(const std::string& text, size_t at) {
  T value{};
  if (at + sizeof value <= text.size()) std::memcpy(&value, text.data() + at, sizeof value);
  return value;
}
uint32_t sumOf(uint32_t seed, std::string_view bytes) {
  return crc32c(std::as_bytes(std::span(bytes)), seed);
}

Pages pagesOf(const CrashModel::Files& files) {
  Pages pages;
  const auto db = files.find(kDb);
  if (db == files.end()) return pages;
  for (uint64_t n = 0; n * kDbPage < db->second.size(); ++n)
    pages[n] = db->second.substr(n * kDbPage, kDbPage);
  return pages;
}

// A database that is durable before the promise begins.
Status makeDatabase(CrashActor& actor, Pages& pages) {
  TRY(actor.createFile(kDb));
  for (uint64_t n = 0; n < kDbPages; ++n) {
    pages[n] = pageOf(1, n);
    TRY(actor.writeBytes(kDb, n * kDbPage, pages[n], Writing::Buffered));
  }
  return actor.syncAll();
}

// Some pages of the next version.
Pages nextPages(std::mt19937_64& random, uint64_t version) {
  Pages changed;
  const uint64_t count = 1 + random() % 3;
  while (changed.size() < count) {
    const uint64_t n = random() % kDbPages;
    changed[n] = pageOf(version, n);
  }
  return changed;
}

// ---- the rollback journal: a header of a sector, and the pages as they were ----

constexpr uint64_t kMagic = 0xd763a120f905d5d9ull, kJournalHeader = 512;
constexpr uint64_t kRecord = 4 + kDbPage + 4;

// A journal that is there and counts its records is hot: what it holds goes back.
Pages rolledBack(const CrashModel::Files& files) {
  Pages pages = pagesOf(files);
  const auto found = files.find(kJournal);
  if (found == files.end() || numberAt<uint64_t>(found->second, 0) != kMagic) return pages;
  const std::string& journal = found->second;
  const auto count = numberAt<uint32_t>(journal, 8), nonce = numberAt<uint32_t>(journal, 12);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = kJournalHeader + i * kRecord;
    if (at + kRecord > journal.size()) break;
    const std::string page = journal.substr(at + 4, kDbPage);
    if (numberAt<uint32_t>(journal, at + 4 + kDbPage) != sumOf(nonce, page)) break;
    pages[numberAt<uint32_t>(journal, at)] = page;
  }
  return pages;
}

Status writeJournal(CrashActor& actor, const Pages& pages, const Pages& changed, uint32_t nonce) {
  TRY(actor.createFile(kJournal));
  std::string header;
  putNumber<uint64_t>(header, 0);  // not valid yet
  putNumber<uint32_t>(header, 0);
  putNumber(header, nonce);
  header.resize(kJournalHeader);
  TRY(actor.writeBytes(kJournal, 0, header, Writing::Buffered));
  uint64_t at = kJournalHeader;
  for (const auto& [number, page] : changed) {
    const std::string& old = pages.at(number);
    std::string record;
    putNumber(record, static_cast<uint32_t>(number));
    record += old;
    putNumber(record, sumOf(nonce, old));
    TRY(actor.writeBytes(kJournal, at, record, Writing::Buffered));
    at += kRecord;
  }
  TRY(syncFor(actor, kJournal, true, "program.unsynced_journal"));
  TRY(actor.syncDirectory(""));
  std::string valid;
  putNumber(valid, kMagic);
  putNumber(valid, static_cast<uint32_t>(changed.size()));
  TRY(actor.writeBytes(kJournal, 0, valid, Writing::Buffered));
  return syncFor(actor, kJournal, true, "program.unsynced_journal");
}

Status writePages(CrashActor& actor, const Pages& changed) {
  for (const auto& [number, page] : changed)
    TRY(actor.writeBytes(kDb, number * kDbPage, page, Writing::Buffered));
  return actor.syncFile(kDb, true);
}

// ---- the write-ahead log: a header, and frames of pages, each with the checksum of all before
// ----

constexpr uint64_t kWalHeader = 32, kFrame = 24 + kDbPage;

struct Wal {
  uint32_t salt = 1, sum = 0;
  uint64_t frames = 0;
  Pages pages;  // in it; the database does not have them yet
};

std::string frameOf(Wal& wal, uint64_t number, const std::string& page, bool commits) {
  std::string frame;
  putNumber(frame, static_cast<uint32_t>(number));
  putNumber(frame, static_cast<uint32_t>(commits ? kDbPages : 0));
  putNumber(frame, wal.salt);
  wal.sum = sumOf(sumOf(wal.sum, frame), page);
  putNumber(frame, wal.sum);
  frame.resize(kFrame - kDbPage);
  return frame + page;
}

// Frames count up to the last one that commits and with all before it is as it was written.
Pages replayed(const CrashModel::Files& files) {
  Pages pages = pagesOf(files), open;
  const auto found = files.find(kWal);
  if (found == files.end() || found->second.size() < kWalHeader) return pages;
  const std::string& wal = found->second;
  Wal read;
  read.salt = numberAt<uint32_t>(wal, 0);
  if (numberAt<uint32_t>(wal, 4) != sumOf(0, wal.substr(0, 4))) return pages;
  for (uint64_t at = kWalHeader; at + kFrame <= wal.size(); at += kFrame) {
    const std::string page = wal.substr(at + kFrame - kDbPage, kDbPage);
    const auto number = numberAt<uint32_t>(wal, at);
    const bool commits = numberAt<uint32_t>(wal, at + 4) != 0;
    if (frameOf(read, number, page, commits) != wal.substr(at, kFrame)) break;
    open[number] = page;
    if (!commits) continue;
    for (const auto& [n, bytes] : open) pages[n] = bytes;
    open.clear();
  }
  return pages;
}

Status startWal(CrashActor& actor, Wal& wal) {
  ++wal.salt;
  wal.sum = 0;
  wal.frames = 0;
  wal.pages.clear();
  std::string header;
  putNumber(header, wal.salt);
  putNumber(header, sumOf(0, header));
  header.resize(kWalHeader);
  TRY(actor.writeBytes(kWal, 0, header, Writing::Buffered));
  return actor.syncFile(kWal, true);
}

Status appendFrames(CrashActor& actor, Wal& wal, const Pages& changed) {
  uint64_t left = changed.size();
  for (const auto& [number, page] : changed) {
    const uint64_t at = kWalHeader + wal.frames++ * kFrame;
    TRY(actor.writeBytes(kWal, at, frameOf(wal, number, page, --left == 0), Writing::Buffered));
    wal.pages[number] = page;
  }
  return syncFor(actor, kWal, true, "program.unsynced_wal");
}

// The log starts anew from its beginning, over the old frames or without them.
Status checkpointWal(CrashActor& actor, Wal& wal, bool cut) {
  TRY(actor.syncFile(kWal, true));
  TRY(writePages(actor, wal.pages));
  if (cut) TRY(actor.truncateFile(kWal, 0));
  return startWal(actor, wal);
}

}  // namespace

Status runSqliteRollback(Stage& stage) {
  constexpr uint64_t kTransactions = 12;
  std::mt19937_64 random(stage.seed);
  const auto commits = std::make_shared<Commits>();
  Pages pages;
  TRY(makeDatabase(stage.actor, pages));
  const uint64_t made = stage.actor.mark();
  commits->all.push_back({{made, made}, pages});
  stage.model.promises([commits](const CrashModel::Files& files, uint64_t point) {
    return point < commits->all.front().span.end ? "" : commits->judge(rolledBack(files), point);
  });
  for (uint64_t i = 0; i < kTransactions; ++i) {
    const Pages changed = nextPages(random, i + 2);
    const uint64_t begin = stage.actor.mark();
    TRY(writeJournal(stage.actor, pages, changed, static_cast<uint32_t>(random())));
    TRY(writePages(stage.actor, changed));
    for (const auto& [number, page] : changed) pages[number] = page;
    TRY(stage.actor.unlinkFile(kJournal, true));
    TRY(stage.actor.syncDirectory(""));
    commits->all.push_back({{begin, stage.actor.mark()}, pages});
    if (i % 4 == 3) TRY(stage.actor.checkpoint());
  }
  return Status::ok();
}

Status runSqliteWal(Stage& stage) {
  constexpr uint64_t kTransactions = 24;
  std::mt19937_64 random(stage.seed);
  const auto commits = std::make_shared<Commits>();
  Pages pages;
  TRY(makeDatabase(stage.actor, pages));
  TRY(stage.actor.createFile(kWal));
  Wal wal;
  TRY(startWal(stage.actor, wal));
  TRY(stage.actor.syncDirectory(""));
  const uint64_t made = stage.actor.mark();
  commits->all.push_back({{made, made}, pages});
  stage.model.promises([commits](const CrashModel::Files& files, uint64_t point) {
    return point < commits->all.front().span.end ? "" : commits->judge(replayed(files), point);
  });
  for (uint64_t i = 0; i < kTransactions; ++i) {
    const Pages changed = nextPages(random, i + 2);
    const uint64_t begin = stage.actor.mark();
    TRY(appendFrames(stage.actor, wal, changed));
    for (const auto& [number, page] : changed) pages[number] = page;
    commits->all.push_back({{begin, stage.actor.mark()}, pages});
    if (random() % 5 == 0) TRY(checkpointWal(stage.actor, wal, random() % 2 == 0));
    if (i % 8 == 7) TRY(stage.actor.checkpoint());
  }
  return Status::ok();
}

}  // namespace ourfs::crash
