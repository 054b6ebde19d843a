// Status and Result<T>: how every layer reports failure. No exception crosses a layer.
//
// An Error is a positive errno value (the field's own vocabulary, mapped to FUSE at one place) and
// one clear line for people. On the hot path the line is empty and costs nothing.
#pragma once

#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <variant>

namespace ourfs {

class [[nodiscard]] Status {
 public:
  Status() = default;  // success
  static Status ok() { return Status(); }
  // REQUIRES: errnum > 0.
  static Status error(int errnum) { return Status(errnum, nullptr); }
  static Status error(int errnum, std::string line) {
    return Status(errnum, std::make_shared<const std::string>(std::move(line)));
  }
  // Bytes on the volume that cannot be right: EUCLEAN, as XFS and ext4 answer.
  static Status corrupt(std::string line) { return error(EUCLEAN, std::move(line)); }

  bool isOk() const { return errnum_ == 0; }
  explicit operator bool() const { return isOk(); }
  int errnum() const { return errnum_; }  // 0 or a positive errno value
  std::string message() const;            // the line, or strerror(errnum())
  // The same error with "context: " in front of its line.
  Status withContext(const std::string& context) const;

 private:
  Status(int errnum, std::shared_ptr<const std::string> line)
      : errnum_(errnum), line_(std::move(line)) {}
  int errnum_ = 0;
  std::shared_ptr<const std::string> line_;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Status error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  bool isOk() const { return state_.index() == 0; }
  explicit operator bool() const { return isOk(); }
  // REQUIRES: isOk().
  T& value() & { return *std::get_if<0>(&state_); }
  const T& value() const& { return *std::get_if<0>(&state_); }
  T&& value() && { return std::move(*std::get_if<0>(&state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return std::get_if<0>(&state_); }
  const T* operator->() const { return std::get_if<0>(&state_); }
  Status status() const { return isOk() ? Status() : *std::get_if<1>(&state_); }
  int errnum() const { return status().errnum(); }

 private:
  std::variant<T, Status> state_;
};

#define OURFS_CONCAT2(a, b) a##b
#define OURFS_CONCAT(a, b) OURFS_CONCAT2(a, b)

// TRY(expression): leaves the function with the error, if there is one.
#define TRY(expr)                                       \
  do {                                                  \
    if (auto try_status_ = (expr); !try_status_.isOk()) \
      return ::ourfs::statusOf(std::move(try_status_)); \
  } while (0)

// TRY_ASSIGN(auto x, expression): the value of a Result, or leaves with its error.
#define TRY_ASSIGN(decl, expr) TRY_ASSIGN_(OURFS_CONCAT(try_result_, __LINE__), decl, expr)
#define TRY_ASSIGN_(tmp, decl, expr)    \
  auto tmp = (expr);                    \
  if (!tmp.isOk()) return tmp.status(); \
  decl = std::move(tmp).value()

inline Status statusOf(Status s) { return s; }
template <class T>
Status statusOf(const Result<T>& r) {
  return r.status();
}

}  // namespace ourfs
