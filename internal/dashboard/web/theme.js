// Sets the chosen colours before anything is painted. Without a choice the system's preference holds.
(function () {
  try {
    var t = localStorage.getItem("theme");
    if (t === "dark" || t === "light") document.documentElement.dataset.theme = t;
  } catch (e) { /* storage is switched off: the system's preference holds */ }
})();
